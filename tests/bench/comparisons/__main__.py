"""Generator of the tables and figures of docs/comparisons.md, and of tables of docs/choosing.md and docs/microvms.md.

    python -m tests.bench.comparisons [--only channels] [--neurons 1024 4096] [--docs docs] [--cache .work/plans]

Partitioning the networks takes about an hour the first time; the plans are cached in --cache.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fsd_inference.cost.prices import load_prices
from fsd_inference.forecast.cut import Cut
from fsd_inference.forecast.timing import load_timing
from tests.bench.comparisons import channels, choosing, drawing, grid, microvms, partitions, servers
from tests.bench.comparisons.pages import markdown, put_block, save_figure
from tests.bench.comparisons.subjects import GRAPH, Subject

NEURONS = (1024, 4096, 16384, 65536)
_CUT_BY_ALL = 4096  # neurons of the largest network for the comparison of all partitioners
_OFTEN_USED = 8  # P of the figure over batch sizes


class Comparisons:
    """The generator of all parts: the networks, and the pages to update."""

    def __init__(self, docs: Path, cache: Path, neurons: list[int], layers: int = 120) -> None:
        self._microvms = docs / "microvms.md"
        self._page, self._choosing, self._figures = docs / "comparisons.md", docs / "choosing.md", docs / "figures"
        self._cache = cache
        self._figures.mkdir(exist_ok=True)
        self._subjects = {count: Subject.official(count, cache, layers) for count in neurons}
        self._timing, self._prices = load_timing(), load_prices()
        self._cuts: dict[int, dict[int, Cut]] = {}

    def _cut(self, neurons: int) -> dict[int, Cut]:
        """Return the partitions by method `graph`, by P."""
        if neurons not in self._cuts:
            wanted = [(GRAPH, workers) for workers in (1, *grid.WORKERS[neurons])]
            found = self._subjects[neurons].cuts(wanted, grid.SAMPLES)
            self._cuts[neurons] = {workers: cut for (_, workers), cut in found.items()}
        return self._cuts[neurons]

    def grid(self) -> None:
        """Update cost and time by neurons, P and batch size."""
        points = [
            point
            for neurons in self._subjects
            for point in grid.points(neurons, self._cut(neurons), grid.BATCHES, self._timing, self._prices)
        ]
        put_block(self._page, "grid", markdown(grid.HEADS, grid.rows(points)))
        save_figure(drawing.grid_over_workers(points), self._figures / "workers.png")
        save_figure(drawing.grid_over_batch(points, _OFTEN_USED), self._figures / "batch.png")

    def paper(self) -> None:
        """Update the comparison of predictions with the authors' runs, with their inputs if available."""
        rows: list[tuple[object, ...]] = []
        for neurons, digits in self._subjects.items():
            subject = digits.with_official_inputs()
            wanted = [(GRAPH, workers) for workers in (1, *grid.WORKERS[neurons])]
            cuts = {workers: cut for (_, workers), cut in subject.cuts(wanted, grid.SAMPLES).items()}
            points = grid.points(neurons, cuts, [grid.SAMPLES], self._timing, self._prices)
            rows += grid.paper_rows(points, subject.inputs)
        put_block(self._page, "paper", markdown(grid.PAPER_HEADS, rows))

    def partitions(self) -> None:
        """Update the comparison of partitioners."""
        found = {}
        for neurons, subject in self._subjects.items():
            if neurons <= _CUT_BY_ALL:
                wanted = [(method, workers) for workers in partitions.WORKERS for method in partitions.METHODS]
                cuts = subject.cuts(wanted, grid.SAMPLES)
                found[subject.name] = list(partitions.volumes(cuts, self._prices))
        rows = [row for name, volumes in found.items() for row in partitions.rows(name, volumes)]
        put_block(self._page, "partitions", markdown(partitions.HEADS, rows))
        save_figure(drawing.partitions(found), self._figures / "partitions.png")

    def channels(self) -> None:
        """Update the comparison of channels `queue` and `object`."""
        made = channels.Channels(self._timing, self._prices)
        table = channels.crossings(made)
        put_block(self._page, "channels", markdown(channels.HEADS, channels.rows(table)))
        put_block(self._page, "workers", markdown(channels.SIZE_HEADS, channels.size_rows(made)))
        real = [
            channels.real_network(subject.name, cut, made)
            for neurons, subject in self._subjects.items()
            for workers, cut in self._cut(neurons).items()
            if workers > 1
        ]
        put_block(self._page, "networks", markdown(channels.REAL_HEADS, map(channels.real_row, real)))
        save_figure(drawing.channels(channels.curves(made), table, real), self._figures / "channels.png")

    def servers(self) -> None:
        """Update the comparison of functions and servers."""
        found: dict[str, list[servers.Alternative]] = {}
        for neurons, subject in self._subjects.items():
            alternatives = servers.alternatives(
                self._cut(neurons), grid.SAMPLES, servers.QUERIES, self._timing, self._prices
            )
            found[subject.name] = list(alternatives)
        rows = (row for name, alternatives in found.items() for row in servers.rows(name, alternatives))
        put_block(self._page, "servers", markdown(servers.HEADS, rows))
        save_figure(drawing.servers(found), self._figures / "servers.png")

    def choosing(self) -> None:
        """Update the decision tables of docs/choosing.md."""
        found = {
            subject.name: choosing.advice(subject, self._timing, self._prices) for subject in self._subjects.values()
        }
        rows = (row for name, advice in found.items() for row in choosing.rows(name, advice))
        put_block(self._choosing, "decisions", markdown(choosing.HEADS, rows))
        evens = (choosing.even_row(name, advice) for name, advice in found.items())
        put_block(self._choosing, "break-even", markdown(choosing.EVEN_HEADS, evens))

    def wide(self) -> None:
        """Update the table of docs/choosing.md for a network that is too large for a function."""
        advice = choosing.wide_advice(self._cache, self._timing, self._prices)
        put_block(self._choosing, "wide", markdown(choosing.HEADS, choosing.rows("wide", advice)))

    def microvms(self) -> None:
        """Update the table of docs/microvms.md."""
        rows: list[tuple[object, ...]] = []
        for subject in self._subjects.values():
            wanted = [(GRAPH, workers) for workers in (1, *microvms.WORKERS)]
            cuts = {workers: cut for (_, workers), cut in subject.cuts(wanted, grid.SAMPLES).items()}
            rows += microvms.rows(subject.name, cuts, self._timing, self._prices)
        put_block(self._microvms, "microvms", markdown(microvms.HEADS, rows))


PARTS = ("grid", "paper", "partitions", "channels", "servers", "choosing", "wide", "microvms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to generate")
    parser.add_argument(
        "--neurons", nargs="+", type=int, choices=NEURONS, default=NEURONS, help="neurons of the networks"
    )
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--cache", type=Path, default=Path(".work/plans"), help="directory of cached plans")
    given = parser.parse_args()
    made = Comparisons(given.docs, given.cache, list(given.neurons))
    for part in given.only:
        print(f"{part}...", flush=True)
        getattr(made, part)()


if __name__ == "__main__":
    main()
