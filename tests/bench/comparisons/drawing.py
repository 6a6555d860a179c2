"""Figures of docs/comparisons.md, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fsd_inference.report.advice_plot import COLOURS
from tests.bench.comparisons.channels import DOLLARS, KB, Real
from tests.bench.comparisons.grid import SAMPLES, VARIANTS, Point, paper_run
from tests.bench.comparisons.partitions import METHODS, Volume
from tests.bench.comparisons.servers import Alternative, break_even

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_METHOD_COLOURS = dict(zip(METHODS, ("#999999", "#e69f00", "#56b4e9", "#0072b2"), strict=True))
_NETWORKS = ("#cc79a7", "#e69f00", "#882255", "#332288")
_SERVERS = {"functions": ("#0072b2", "-"), "job server": ("#999999", "-"), "job cluster": ("#999999", "--"),
            "always-on server": ("#000000", "-"), "always-on cluster": ("#000000", "--")}  # fmt: skip


def _figure(columns: int, rows: int = 1, height: float = 3.4, **more: Any) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(3.3 * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **more)


def _finish(figure: Figure, axes: Any) -> Figure:
    for each in axes.flat:
        each.grid(visible=True, which="major", color="#dddddd", linewidth=0.5)
    handles: dict[str, Any] = {}
    for each in axes.flat:
        for handle, label in zip(*each.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        handles.values(), handles.keys(), frameon=False, loc="outside lower center", ncols=min(5, len(handles))
    )
    return figure


def grid_over_workers(points: Sequence[Point]) -> Figure:
    """Plot cost and time of a batch of the paper's size over P, one column per network; crosses: the authors' runs."""
    sizes = sorted({point.neurons for point in points})
    figure, axes = _figure(len(sizes), 2, 2.9, sharex=True)
    for column, neurons in enumerate(sizes):
        for variant in VARIANTS:
            of_variant = [p for p in points if (p.neurons, p.samples, p.option.variant) == (neurons, SAMPLES, variant)]
            of_variant = sorted((p for p in of_variant if p.option.problem is None), key=lambda p: p.option.workers)
            workers = [p.option.workers for p in of_variant]
            runs = [(p, paper_run(variant, neurons, p)) for p in workers]
            measured = [(p, float(run.figures["batch_wall_s"]), run.total_usd) for p, run in runs if run is not None]
            for axis, values, place in (
                (axes[0, column], [p.option.wall_s for p in of_variant], 1),
                (axes[1, column], [p.option.usd or 0.0 for p in of_variant], 2),
            ):
                axis.plot(workers, values, "o-", color=COLOURS[variant], label=variant, markersize=4)
                known = [(each[0], each[place]) for each in measured if each[place] is not None]
                if known:
                    x, y = zip(*known, strict=True)
                    axis.plot(x, y, "x:", color=COLOURS[variant], label=f"{variant}, the paper's runs", linewidth=0.8)
        for axis in axes[:, column]:
            axis.set(xscale="log", yscale="log")
            axis.set_xticks([1, 2, 8, 20, 62], ["1", "2", "8", "20", "62"], minor=False)
            axis.tick_params(axis="x", which="minor", labelbottom=False)
        axes[0, column].set_title(f"{neurons:,} neurons", fontsize=10)
        axes[1, column].set_xlabel("P")
    axes[0, 0].set_ylabel("seconds")
    axes[1, 0].set_ylabel("USD")
    return _finish(figure, axes)


def grid_over_batch(points: Sequence[Point], workers: int) -> Figure:
    """Plot cost and time of a sample over the batch size, one column per network, for one function and P functions."""
    sizes = sorted({point.neurons for point in points})
    figure, axes = _figure(len(sizes), 2, 2.9, sharex=True)
    for column, neurons in enumerate(sizes):
        for variant in VARIANTS:
            wanted = neurons, variant, 1 if variant == "serial" else workers
            of_variant = [p for p in points if (p.neurons, p.option.variant, p.option.workers) == wanted]
            of_variant = sorted((p for p in of_variant if p.option.problem is None), key=lambda p: p.samples)
            x = [p.samples for p in of_variant]
            label = variant if variant == "serial" else f"{variant}, P={workers}"
            style = {"color": COLOURS[variant], "label": label, "markersize": 4}
            axes[0, column].plot(x, [p.option.wall_s for p in of_variant], "o-", **style)
            axes[1, column].plot(x, [(p.option.usd or 0.0) / p.samples for p in of_variant], "o-", **style)
        for axis in axes[:, column]:
            axis.set(xscale="log", yscale="log")
        axes[0, column].set_title(f"{neurons:,} neurons", fontsize=10)
        axes[1, column].set_xlabel("samples of a batch")
    axes[0, 0].set_ylabel("seconds")
    axes[1, 0].set_ylabel("USD a sample")
    return _finish(figure, axes)


def partitions(found: Mapping[str, Sequence[Volume]]) -> Figure:
    """Plot rows, bytes and dollars of each partitioner over P, one row per network."""
    figure, axes = _figure(4, len(found), 2.7, sharex=True)
    looked_at: tuple[tuple[str, Callable[[Volume], float]], ...] = (
        ("rows sent", lambda volume: volume.row_sends),
        ("MB received", lambda volume: volume.megabytes),
        ("USD of the services, queue", lambda volume: volume.queue_usd),
        ("USD of the services, object", lambda volume: volume.object_usd),
    )
    for line, (name, volumes) in zip(axes, found.items(), strict=True):
        workers = sorted({volume.workers for volume in volumes})
        for axis, (title, value) in zip(line, looked_at, strict=True):
            for place, method in enumerate(METHODS):
                heights = [value(v) for p in workers for v in volumes if (v.workers, v.method) == (p, method)]
                at = [number + 0.2 * (place - 1.5) for number in range(len(heights))]
                axis.bar(at, heights, 0.19, color=_METHOD_COLOURS[method], label=method)
            axis.set_title(title, fontsize=9)
            axis.set_xticks(range(len(workers)), [f"P={p}" for p in workers])
        line[0].set_ylabel(name)
    return _finish(figure, axes)


def channels(
    curves: Mapping[int, Mapping[str, Sequence[float]]],
    crossings: Mapping[int, Mapping[str, float | None]],
    networks: Sequence[Real],
) -> Figure:
    """Plot the cost of an exchange over kilobytes per pair, one panel per P, and the crossings over P."""
    figure, axes = _figure(len(curves) + 1)
    for axis, (workers, by_channel) in zip(axes[0], curves.items(), strict=False):
        for channel, values in by_channel.items():
            axis.plot(KB, values, color=COLOURS[channel], label=channel)
        axis.set(xscale="log", yscale="log", xlabel="kB a pair and layer")
        axis.set_title(f"P={workers}", fontsize=10)
    axes[0, 0].set_ylabel("USD a layer")
    last = axes[0, -1]
    for name, style in (("services", "o--"), (DOLLARS, "o-")):
        known = [(workers, found[name]) for workers, found in crossings.items() if found[name] is not None]
        last.plot(*zip(*known, strict=True), style, color="#444444", markersize=3, label=f"crossing, {name}")
    for place, name in enumerate(dict.fromkeys(real.name for real in networks)):
        line = [(real.workers, real.kb) for real in networks if real.name == name]
        last.plot(*zip(*line, strict=True), "x:", color=_NETWORKS[place], markersize=4, linewidth=0.8, label=name)
    last.set(xscale="log", yscale="log", xlabel="P", ylabel="kB a pair and layer")
    last.set_title("above a crossing object is cheaper", fontsize=10)
    last.set_xticks([2, 8, 32], ["2", "8", "32"], minor=False)
    last.tick_params(axis="x", which="minor", labelbottom=False)
    return _finish(figure, axes)


def servers(found: Mapping[str, Sequence[Alternative]]) -> Figure:
    """Plot dollars a day over queries a day, one panel per network, with the points where a server becomes cheaper."""
    figure, axes = _figure(len(found), sharey=True)
    for axis, (name, alternatives) in zip(axes[0], found.items(), strict=True):
        for kind, (colour, style) in _SERVERS.items():
            line = [(one.queries_a_day, one.usd_a_day) for one in alternatives if one.kind == kind]
            if line:
                axis.plot(*zip(*line, strict=True), style, color=colour, label=kind)
        even = break_even(alternatives)
        if even is not None:
            axis.axvline(even, color="#cc79a7", linestyle=":", linewidth=1)
            axis.annotate(
                f"{even:,.0f}", (even, 0.02), xycoords=("data", "axes fraction"), textcoords="offset points",
                xytext=(-4, 0), ha="right", fontsize=8,
            )  # fmt: skip
        axis.set(xscale="log", yscale="log", xlabel="queries a day")
        axis.set_title(name, fontsize=10)
    axes[0, 0].set_ylabel("USD a day")
    return _finish(figure, axes)
