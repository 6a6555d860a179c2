"""Comparison of two runs of the same network and batch by the digests of their layers."""

from __future__ import annotations

from dataclasses import dataclass

from fsd_inference.digests import Digests
from fsd_inference.errors import FileFormatError, SettingError
from fsd_inference.report.figures import run_figures
from fsd_inference.run_report import RunReport


@dataclass(frozen=True, slots=True)
class Difference:
    """The first layer whose outputs differ between two runs.

    Attributes
    ----------
    layer : int
    ranks : tuple of int or None
        The ranks (with replicas: the replicas) whose outputs of it differ, ascending; None if the runs have no parts
        that correspond, because network or batch are divided in other ways or not at all.
    part : str
        The word for one of `ranks`.
    wires : tuple of str
        Number formats that the ranks of either run sent; another one than float32 changes the outputs.
    """

    layer: int
    ranks: tuple[int, ...] | None
    part: str
    wires: tuple[str, str]

    def __str__(self) -> str:
        where = f"layer {self.layer} is the first whose outputs differ"
        if self.ranks is not None:
            names = ", ".join(map(str, self.ranks))
            where += f", in {self.part}{'s' if len(self.ranks) > 1 else ''} {names}"
        if self.wires != ("float32", "float32"):
            sent = self.wires[0] if self.wires[0] == self.wires[1] else " and ".join(self.wires)
            where += f"; the runs sent {sent}, and rounding what is sent changes outputs"
        return where


def first_difference(one: RunReport, other: RunReport, names: tuple[str, str]) -> Difference | None:
    """Return the first layer whose outputs differ between two runs; None if there is no such layer.

    Parameters
    ----------
    one, other : RunReport
    names : (str, str)
        What the runs are called in messages.

    Raises
    ------
    SettingError
        The runs cannot be compared: one has no digests, or they are of different networks or batches.
    FileFormatError
        A report contradicts itself.
    """
    ours, theirs = (checked(report, name) for report, name in zip((one, other), names, strict=True))
    pair = f"{names[0]} and {names[1]}"
    if ours.network != theirs.network:
        raise SettingError(f"{pair} are runs of different networks; compare runs of one network")
    if (one.samples, ours.batch) != (other.samples, theirs.batch):
        raise SettingError(f"{pair} are runs of different inputs; compare runs of one batch")
    layers = zip(ours.layers, theirs.layers, strict=True)
    layer = next((number for number, (mine, its) in enumerate(layers) if mine != its), None)
    if layer is None:
        return None
    figures = run_figures(one)
    ranks = None
    if _same_parts(one, other):
        pairs = zip(figures.ranks, run_figures(other).ranks, strict=True)
        ranks = tuple(mine.rank for mine, its in pairs if mine.digests[layer] != its.digests[layer])
    return Difference(layer, ranks, figures.part, (one.wire, other.wire))


def checked(report: RunReport, name: str) -> Digests:
    """Return the digests of a run; raise SettingError if it has none, FileFormatError if it contradicts itself."""
    try:
        run_figures(report)
    except FileFormatError as error:
        raise FileFormatError(f"{name}: {error}") from error
    if report.digests is None:
        why = "was made without digests" if report.error is None else "failed, so that it has no digests"
        raise SettingError(f"{name}: the run {why}; run it again with --verify")
    return report.digests


def _same_parts(one: RunReport, other: RunReport) -> bool:
    """Return whether each rank, or replica, of a run has computed the same neurons and samples as that of the other."""
    if (one.workers, one.replicas) != (other.workers, other.replicas):
        return False
    plans = [report.digests and report.digests.plan for report in (one, other)]
    have_all = all(
        len(report.ranks) == report.parts and all(rank.digests for rank in report.ranks) for report in (one, other)
    )
    return have_all and (one.workers == 1 or plans[0] == plans[1])
