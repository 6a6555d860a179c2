"""What a run's report says, checked, and gathered for tables and drawings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fsd_inference.errors import FileFormatError
from fsd_inference.rank_report import LayerReport, RankReport
from fsd_inference.run_report import RunReport


@dataclass(frozen=True, slots=True)
class RunFigures:
    """A run's report and its parts, checked.

    Attributes
    ----------
    report : RunReport
    ranks : tuple of RankReport
        Ascending; replicas count as ranks. None of a serial run in one process.
    start, end : float
        When rank 0 was started and the last rank ended, seconds since the epoch; both 0 where no rank says.
    layers : tuple of LayerReport
        The mean rank's seconds, and what all ranks sent and asked for.
    """

    report: RunReport
    ranks: tuple[RankReport, ...]
    start: float
    end: float
    layers: tuple[LayerReport, ...]

    @property
    def wait_s(self) -> float:
        """Seconds without anything to compute, of the mean rank."""
        return sum(rank.wait_s for rank in self.ranks) / max(1, len(self.ranks))

    @property
    def part(self) -> str:
        """What those that report are called."""
        return "replica" if self.report.replicas > 1 else "rank"

    def sampled(self, most: int) -> tuple[RankReport, ...]:
        """Return all ranks, or `most` of them, evenly spread, the first and the last among them."""
        count = len(self.ranks)
        if count <= most:
            return self.ranks
        return tuple(self.ranks[round(i * (count - 1) / (most - 1))] for i in range(most))


def run_figures(report: RunReport) -> RunFigures:
    """Gather the figures of a report's ranks.

    Raises
    ------
    FileFormatError
        They are not different ranks of the run.
    """
    ranks = tuple(sorted(report.ranks, key=lambda rank: rank.rank))
    numbers = [rank.rank for rank in ranks]
    if len(set(numbers)) != len(numbers) or not all(rank < report.parts for rank in numbers):
        raise FileFormatError(f"the ranks of the report must be different ones of {report.parts}, not {numbers!r:.60}")
    starts = [rank.started for rank in ranks if rank.started is not None]
    ends = [rank.ended for rank in ranks if rank.ended is not None]
    start = max(starts) - report.launch_s if starts else 0.0
    return RunFigures(report, ranks, min([start, *starts]), max([start, *ends]), _layer_totals(ranks))


def _layer_totals(ranks: Sequence[RankReport]) -> tuple[LayerReport, ...]:
    """Return by layer the mean rank's seconds, and what all ranks sent and asked for."""
    totals = []
    for layer in range(max((len(rank.layers) for rank in ranks), default=0)):
        parts = [rank.layers[layer] for rank in ranks if layer < len(rank.layers)]
        totals.append(
            LayerReport(
                compute_s=sum(part.compute_s for part in parts) / len(parts),
                unpack_s=sum(part.unpack_s for part in parts) / len(parts),
                pack_s=sum(part.pack_s for part in parts) / len(parts),
                wait_s=sum(part.wait_s for part in parts) / len(parts),
                send_s=sum(part.send_s for part in parts) / len(parts),
                frames=sum(part.frames for part in parts),
                bytes=sum(part.bytes for part in parts),
                requests=sum(part.requests for part in parts),
            )
        )
    return tuple(totals)
