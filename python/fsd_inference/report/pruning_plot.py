"""The plot of a network pruned to several sparsities: its error and accuracy beside its size, time and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsd_inference.atomic import atomic_file
from fsd_inference.report.advice_plot import check_plot
from fsd_inference.report.fonts import load_fonts

_BLUE, _RED, _GREEN = "#0072b2", "#d55e00", "#009e73"  # of the palette of Okabe and Ito


@dataclass(frozen=True, slots=True)
class PrunedPoint:
    """A network pruned to one sparsity.

    Attributes
    ----------
    name : str
        How it was pruned: "90%" or "2:4"; "given" for the network itself.
    connections : int
        Connections that are left.
    density : float
        Connections as a fraction of those of dense layers.
    size : int
        Size of the weights in bytes, as a worker that has all of them loads them.
    option : str
        The cheapest way to run it on functions, as `fsd advise` names it; or why it cannot run on them.
    wall_s, usd : float or None
        Predicted seconds and cost in dollars of a query by that option; None if it cannot run on functions.
    error : float or None
        Euclidean norm of the outputs' differences from those of the given network, relative to the norm of these; None
        without samples.
    accuracy : float or None
        Fraction of the samples whose largest output is that of their class; None without classes.
    """

    name: str
    connections: int
    density: float
    size: int
    option: str
    wall_s: float | None
    usd: float | None
    error: float | None
    accuracy: float | None


def plot_pruning(points: Sequence[PrunedPoint], title: str, path: Path) -> None:
    """Plot error and accuracy, and time and cost, over the connections that are left.

    Raises
    ------
    SettingError
        The file's suffix is not that of a plot, or matplotlib is not installed.
    InputError, OutputError
        The file cannot be written.
    """
    check_plot(path)
    load_fonts()
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.ticker import NullLocator  # noqa: PLC0415

    figure = Figure(figsize=(7, 6.5), layout="constrained")
    quality, seconds, dollars = figure.subplots(nrows=3, sharex=True, height_ratios=(2, 1, 1))
    quality.set_title(title, loc="left", fontsize=10)
    points = sorted(points, key=lambda point: -point.density)
    at = [100 * point.density for point in points]
    _line(quality, at, [_percent(point.error) for point in points], _RED, "error of the outputs")
    _line(quality, at, [_percent(point.accuracy) for point in points], _BLUE, "accuracy")
    quality.set(ylabel="%")
    quality.legend(frameon=False, fontsize=8)
    _line(seconds, at, [point.wall_s for point in points], _GREEN, "")
    seconds.set(ylabel="seconds a query")
    _line(dollars, at, [point.usd for point in points], _GREEN, "")
    dollars.set(ylabel="USD a query", xscale="log", xlabel="connections left, % of dense layers")
    dollars.invert_xaxis()
    dollars.xaxis.set_minor_locator(NullLocator())
    dollars.set_xticks(at, [f"{value:.3g}" for value in at])
    with atomic_file(path) as unfinished:
        figure.savefig(unfinished, format=path.suffix[1:], dpi=150)


def _line(axes: Any, x: list[float], y: list[float | None], colour: str, label: str) -> None:
    known = [(at, value) for at, value in zip(x, y, strict=True) if value is not None]
    if known:
        axes.plot(*zip(*known, strict=True), marker="o", markersize=4, color=colour, label=label)
        axes.set_ylim(0, 1.1 * max(axes.dataLim.y1, 1e-12))


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
