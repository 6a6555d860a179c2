"""PNG plots of a run, drawn with matplotlib, which is an optional dependency."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsd_inference.atomic import atomic_files
from fsd_inference.errors import SettingError
from fsd_inference.report.axes import axis_end
from fsd_inference.report.charts import DRAWN_RANKS
from fsd_inference.report.figures import RunFigures
from fsd_inference.report.fonts import load_fonts
from fsd_inference.report.matrix import matrix
from fsd_inference.report.tracks import SENDS, activity, main_track

if TYPE_CHECKING:  # matplotlib is an extra, imported only when plots are drawn
    from matplotlib.figure import Figure

_COLOURS = {
    "start": "#c3b8a5",
    "load": "#9a7b4f",
    "wait": "#d5dce4",
    "unpack": "#12917f",
    "compute": "#2563c9",
    "pack": "#8646c2",
    "store": "#c03a76",
    "send": "#e07a10",
}
"""Colours of activities, the same as in the page's light theme."""
_OTHER = "#8a94a0"
_STACKED = ("compute", "unpack", "pack", "wait")
_DPI = 150


def check_plots() -> None:
    """Raise SettingError unless matplotlib is installed."""
    if find_spec("matplotlib") is None:
        raise SettingError("plots need matplotlib, which is not installed: pip install 'fsd-inference[report]'")


def save_plots(figures: RunFigures, directory: Path) -> list[Path]:
    """Write ``timeline.png``, ``layers.png`` and ``matrix.png``, leaving out those without data; return the paths.

    Raises
    ------
    SettingError
        Matplotlib is not installed.
    InputError, OutputError
        The directory cannot be written.
    """
    check_plots()
    with atomic_files() as place:
        return draw_plots(figures, directory, place)


def draw_plots(figures: RunFigures, directory: Path, place: Callable[[Path], Path]) -> list[Path]:
    """Write plots as `save_plots` does, but each to the path that `place` returns for its final one."""
    drawn = {"timeline": _timeline(figures), "layers": _layers(figures), "matrix": _matrix(figures)}
    paths = []
    for name, figure in drawn.items():
        if figure is not None:
            paths.append(directory / f"{name}.png")
            figure.savefig(place(paths[-1]), format="png", dpi=_DPI)
    return paths


def _figure(width: float, height: float, **more: Any) -> tuple[Figure, Any]:
    # Not pyplot: it has global state, opens windows and chooses a backend.
    load_fonts()
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(**more)


def _title(figures: RunFigures, what: str) -> str:
    report = figures.report
    size = f"P={report.workers:,}" if report.replicas == 1 else f"{report.replicas:,} replicas"
    return f"{what}: {report.channel}, {size}, {report.samples:,} samples, {report.layers:,} layers"


def _timeline(figures: RunFigures) -> Figure | None:
    if not any(rank.events for rank in figures.ranks):
        return None
    ranks = figures.sampled(DRAWN_RANKS)
    figure, axes = _figure(11, 1.6 + 0.22 * len(ranks))
    names: set[str] = set()
    for place, rank in enumerate(ranks):
        bars: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        for each in (*main_track(rank), *(each for each in rank.events if each.name in SENDS)):
            bars[activity(each)].append((each.start - figures.start, each.end - each.start))
        for name, spans in bars.items():
            bottom, height = (0.2, 0.18) if name in SENDS else (-0.4, 0.58)
            colour = _COLOURS.get(name, _OTHER)
            # An edge keeps intervals shorter than a pixel visible; waiting, as the background, needs none.
            edge = 0.0 if name == "wait" else 0.3
            axes.broken_barh(spans, (place + bottom, height), facecolors=colour, edgecolors=colour, linewidth=edge)
        names |= bars.keys()
    axes.set_yticks(range(len(ranks)), [rank.rank for rank in ranks], fontsize=7)
    axes.set_ylim(len(ranks) - 0.4, -0.6)
    axes.set_xlim(0, figures.end - figures.start)
    axes.set_xlabel(f"seconds since {figures.part} 0 was started")
    axes.set_ylabel(figures.part)
    shown = "" if len(ranks) == len(figures.ranks) else f" ({len(ranks)} of {len(figures.ranks):,} {figures.part}s)"
    axes.set_title(_title(figures, "Timeline") + shown, fontsize=10, loc="left")
    _legend(figure, [name for name in _COLOURS if name in names])
    return figure


def _legend(figure: Figure, names: list[str]) -> None:
    from matplotlib.patches import Patch  # noqa: PLC0415

    patches = [Patch(color=_COLOURS[name], label=name) for name in names]
    figure.legend(handles=patches, ncols=len(names), fontsize=7, frameon=False, loc="outside lower left")


def _layers(figures: RunFigures) -> Figure | None:
    layers = figures.layers
    if not layers:
        return None
    figure, (sent, asked, spent) = _figure(11, 7.5, nrows=3, sharex=True)
    numbers = range(len(layers))
    sent.bar(numbers, [each.bytes / 1e3 for each in layers], color=_COLOURS["compute"])
    sent.set_ylabel("kB sent after layer")
    asked.bar(numbers, [each.requests for each in layers], color=_COLOURS["compute"])
    asked.set_ylabel("requests during layer")
    below = [0.0] * len(layers)
    for name in _STACKED:
        values = [getattr(each, f"{name}_s") * 1e3 for each in layers]
        spent.bar(numbers, values, bottom=below, color=_COLOURS[name], label=name)
        below = [one + other for one, other in zip(below, values, strict=True)]
    end = axis_end(below)
    cut = "" if end >= max(below) else " (cut off)"
    spent.set_ylim(0, 1.05 * end or 1)
    spent.set_xlim(-1, len(layers))
    spent.set_ylabel(f"ms, mean rank{cut}")
    spent.set_xlabel("layer")
    spent.legend(fontsize=7, frameon=False, ncols=len(_STACKED))
    sent.set_title(_title(figures, "Layers"), fontsize=10, loc="left")
    return figure


def _matrix(figures: RunFigures) -> Figure | None:
    found = matrix(figures, DRAWN_RANKS)
    if found is None or not found.total:
        return None
    figure, axes = _figure(6.5, 5.5)
    edge = found.workers - 0.5
    image = axes.imshow(
        [[cell / 1e3 for cell in row] for row in found.cells], cmap="Blues", vmin=0, extent=(-0.5, edge, edge, -0.5)
    )
    axes.set_xlabel("to rank")
    axes.set_ylabel("from rank")
    sums = "" if found.block == 1 else f" of {found.block} x {found.block} ranks"
    figure.colorbar(image, label=f"kB{sums}")
    axes.set_title(_title(figures, "Bytes"), fontsize=10, loc="left")
    return figure
