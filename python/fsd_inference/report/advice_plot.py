"""The plot of a planner's options, cost against time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fsd_inference.atomic import atomic_file
from fsd_inference.errors import SettingError
from fsd_inference.report.fonts import load_fonts
from fsd_inference.report.plots import check_plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fsd_inference.forecast.options import Advice, Option

KINDS = (".png", ".svg", ".pdf")
COLOURS = {
    "serial": "#0072b2",
    "queue": "#d55e00",
    "object": "#009e73",
    "express": "#56b4e9",
    "direct": "#f0e442",
    "job server": "#999999",
    "always-on server": "#000000",
    "job cluster": "#cc79a7",
    "always-on cluster": "#e69f00",
    "managed instances": "#f0e442",
}
"""Colours of variants: the palette of Okabe and Ito, which colour-blind readers can tell apart."""
_LIMIT = "#aa3377"
_BEHIND = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
_PLACES = ((8, -3, "left"), (-8, -3, "right"), (0, 8, "center"), (0, -15, "center"))
"""Offsets of a label from its point (in points) and its alignment: the first without an overlap is used."""


def check_plot(path: Path) -> None:
    """Raise SettingError unless matplotlib is installed and the file's suffix is one of `KINDS`."""
    if path.suffix not in KINDS:
        raise SettingError(f"{path} must end in {', '.join(KINDS)}")
    check_plots()


def plot_advice(advice: Advice, title: str, path: Path) -> None:
    """Plot the cost of each option against its time.

    A step line joins the Pareto-optimal options, hollow points are options that exceed a limit, and the best option of
    each variant has a label.

    Raises
    ------
    SettingError
        The file's suffix is not one of `KINDS`, or matplotlib is not installed.
    InputError, OutputError
        The file cannot be written.
    """
    check_plot(path)
    load_fonts()
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(9, 5.2), layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log", xlabel="seconds until the answer", ylabel="USD per query")
    axes.set_title(title, loc="left")
    axes.margins(0.08)
    options = [option for option in advice.options if option.usd is not None and option.limit != "memory"]
    front = sorted((o.wall_s, o.usd or 0.0) for o in options if o.is_pareto)
    if front:
        x, y = zip(*front, strict=True)
        axes.step(x, y, where="post", color="#777777", linewidth=1, zorder=2, label="Pareto front")
    for variant, colour in COLOURS.items():
        for feasible in (True, False):
            points = [
                (o.wall_s, o.usd or 0.0) for o in options if o.variant == variant and (o.problem is None) == feasible
            ]
            if points:
                x, y = zip(*points, strict=True)
                face = colour if feasible else "none"
                axes.scatter(x, y, s=30, facecolors=face, edgecolors=colour, zorder=3)
    for variant in dict.fromkeys(option.variant for option in options):
        axes.scatter([], [], s=30, color=COLOURS[variant], label=variant)
    if any(option.problem is not None for option in options):
        axes.scatter([], [], s=30, facecolors="none", edgecolors="#444444", label="exceeds a limit")
    asked = advice.question
    if asked.deadline_s is not None:
        axes.axvline(asked.deadline_s, color=_LIMIT, linestyle="--", linewidth=1, label="deadline")
    if asked.budget_usd is not None:
        axes.axhline(asked.budget_usd, color=_LIMIT, linestyle=":", linewidth=1, label="budget")
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.5)
    figure.legend(frameon=False, loc="outside right upper", fontsize=9)
    _name(figure, axes, options)
    with atomic_file(path) as unfinished:
        figure.savefig(unfinished, format=path.suffix[1:], dpi=150)


def _name(figure: Figure, axes: Axes, options: Sequence[Option]) -> None:
    """Label each variant's best option where a label overlaps nothing; that of `options[0]` in bold."""
    from matplotlib.transforms import Bbox  # noqa: PLC0415

    figure.draw_without_rendering()  # computes the layout, and so the positions of the points
    at = axes.transData.transform([(option.wall_s, option.usd or 0.0) for option in options])
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in at]
    named = {option.variant: option for option in reversed(options) if option.problem is None}
    for option in sorted(named.values(), key=lambda one: one is not options[0]):
        weight = "bold" if option is options[0] else "normal"
        for right, up, side in _PLACES:
            label = axes.annotate(
                option.name, (option.wall_s, option.usd or 0.0), textcoords="offset points", xytext=(right, up),
                ha=side, fontsize=8, weight=weight, bbox=_BEHIND,
            )  # fmt: skip
            box = label.get_window_extent()
            is_inside = (
                axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1 and axes.bbox.y0 < box.y0 < box.y1 < axes.bbox.y1
            )
            if is_inside and not box.count_overlaps(taken):
                taken.append(box)
                break
            label.remove()
