"""The figures of a run's report, validated and aggregated for tables and drawings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fsd_inference.errors import FileFormatError
from fsd_inference.rank_report import LayerReport, RankReport
from fsd_inference.run_report import RunReport


@dataclass(frozen=True, slots=True)
class RunFigures:
    """A validated report of a run with its aggregated figures.

    Attributes
    ----------
    report : RunReport
        The report itself.
    ranks : tuple of RankReport
        Reports of the ranks in ascending order; replicas count as ranks. Empty for a serial run in one process.
    start, end : float
        When rank 0 was started and the last rank ended, seconds since the epoch; both 0 if no rank reports it.
    layers : tuple of LayerReport
        For each layer, mean seconds over the ranks, and total frames, bytes and requests of all ranks.
    """

    report: RunReport
    ranks: tuple[RankReport, ...]
    start: float
    end: float
    layers: tuple[LayerReport, ...]

    @property
    def wait_s(self) -> float:
        """Mean over the ranks of the seconds without anything to compute."""
        return sum(rank.wait_s for rank in self.ranks) / max(1, len(self.ranks))

    @property
    def part(self) -> str:
        """The word for one participant in the run: ``"rank"`` or ``"replica"``."""
        return "replica" if self.report.replicas > 1 else "rank"

    def sampled(self, most: int) -> tuple[RankReport, ...]:
        """Return all ranks, or if there are more than `most`, that many evenly spaced, including the first and last."""
        count = len(self.ranks)
        if count <= most:
            return self.ranks
        return tuple(self.ranks[round(i * (count - 1) / (most - 1))] for i in range(most))


def run_figures(report: RunReport) -> RunFigures:
    """Validate a report and aggregate the figures of its ranks.

    Raises
    ------
    FileFormatError
        A rank appears twice, is not one of the run, or names a layer or a rank that is not one of the run; or there are
        not as many digests as layers.
    """
    ranks = tuple(sorted(report.ranks, key=lambda rank: rank.rank))
    numbers = [rank.rank for rank in ranks]
    if len(set(numbers)) != len(numbers) or not all(rank < report.parts for rank in numbers):
        raise FileFormatError(f"the report must have different ranks below {report.parts}, not {numbers!r:.60}")
    for rank in ranks:
        events = [event.layer for event in rank.events]  # -1 before the first layer, L for what follows the last
        if len(rank.layers) > report.layers or not all(-1 <= layer <= report.layers for layer in events):
            raise FileFormatError(f"rank {rank.rank} of the report names a layer that is not one of {report.layers}")
        if len(rank.digests) not in {0, report.layers}:
            raise FileFormatError(
                f"rank {rank.rank} of the report has digests of {len(rank.digests)} layers, not {report.layers}"
            )
        if any(sent.target >= report.parts for sent in rank.sent_to or ()):
            raise FileFormatError(f"rank {rank.rank} of the report sent to a rank that is not one of {report.parts}")
    if report.digests is not None and len(report.digests.layers) != report.layers:
        raise FileFormatError(f"the report has digests of {len(report.digests.layers)} layers, not {report.layers}")
    starts = [rank.started for rank in ranks if rank.started is not None]
    ends = [rank.ended for rank in ranks if rank.ended is not None]
    start = max(0.0, max(starts) - report.launch_s) if starts else 0.0
    return RunFigures(report, ranks, min([start, *starts]), max([start, *ends]), _layer_totals(ranks))


def _layer_totals(ranks: Sequence[RankReport]) -> tuple[LayerReport, ...]:
    """Return for each layer the mean seconds over the ranks, and the total frames, bytes and requests."""
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
