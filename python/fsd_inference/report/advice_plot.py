"""Cost against time of the options that a planner found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fsd_inference.errors import SettingError
from fsd_inference.report.plots import check_plots

if TYPE_CHECKING:
    from fsd_inference.cost.options import Advice

KINDS = (".png", ".svg", ".pdf")
COLOURS = {
    "serial": "#0072b2",
    "queue": "#d55e00",
    "object": "#009e73",
    "express": "#56b4e9",
    "job server": "#999999",
    "always-on server": "#000000",
}  # Okabe and Ito's, told apart by everyone


def check_plot(path: Path) -> None:
    """Raise SettingError unless a plot can be drawn in a file of that name."""
    if path.suffix not in KINDS:
        raise SettingError(f"{path} must end in {', '.join(KINDS)}")
    check_plots()


def plot_advice(advice: Advice, title: str, path: Path) -> None:
    """Draw cost against time: options that no other one beats in both are joined, those that cannot be had are hollow.

    Raises
    ------
    SettingError
        The file's name or matplotlib is missing.
    """
    check_plot(path)
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log", xlabel="seconds until the answer", ylabel="USD a query")
    axes.set_title(title, loc="left")
    options = [option for option in advice.options if option.usd is not None and option.limit != "memory"]
    for variant, colour in COLOURS.items():
        of_variant = [option for option in options if option.variant == variant]
        for can_be_had in (True, False):
            points = [(o.wall_s, o.usd) for o in of_variant if (o.problem is None) == can_be_had]
            if points:
                x, y = zip(*points, strict=True)
                face = colour if can_be_had else "none"
                label = variant if can_be_had or all(o.problem is not None for o in of_variant) else None
                axes.scatter(x, y, s=36, facecolors=face, edgecolors=colour, label=label, zorder=3)
    front = sorted((o.wall_s, o.usd) for o in options if o.is_pareto and o.usd is not None)
    if front:
        x, y = zip(*front, strict=True)
        axes.step(x, y, where="post", color="#777777", linewidth=1, zorder=2)
    best = advice.options[0]
    if best.usd is not None:
        axes.annotate(best.name, (best.wall_s, best.usd), textcoords="offset points", xytext=(8, 8))
    if advice.question.deadline_s is not None:
        axes.axvline(advice.question.deadline_s, color="#cc79a7", linestyle="--", linewidth=1)
    if advice.question.budget_usd is not None:
        axes.axhline(advice.question.budget_usd, color="#cc79a7", linestyle="--", linewidth=1)
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.5)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
