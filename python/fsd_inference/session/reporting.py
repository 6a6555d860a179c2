"""The report of a distributed run, computed from the reports of its ranks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from fsd_inference import kernels
from fsd_inference.cost.metered import billed_s
from fsd_inference.digests import Digests, added
from fsd_inference.engine.ending import Ended
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import RunError, StragglerError
from fsd_inference.partitioning import Manifest
from fsd_inference.prediction import Prediction
from fsd_inference.rank_report import RankReport
from fsd_inference.report import Report
from fsd_inference.run_report import EarlierFunctions
from fsd_inference.usage import Usage


def run_report(
    channel: str,
    manifest: Manifest,
    runs: Sequence[tuple[RunSpec, Sequence[Ended]]],
    *,
    wall_s: float,
    usage: Usage,
    error: RunError | None = None,
    predicted: Prediction | None = None,
    batch_digest: int | None = None,
) -> Report:
    """Return the report of a run, or of replicas of it over slices of a batch.

    Parameters
    ----------
    channel : str
    manifest : Manifest
        Manifest of the network that was run.
    runs : sequence of (RunSpec, sequence of Ended)
        For each run its last attempt and the outcomes of all its attempts; times are taken from the last outcome, but
        for those of the functions of the earlier ones.
    wall_s : float
        Seconds from the call of `infer` to its end.
    usage : Usage
        Usage by the session, coordinators and services; that of the ranks is added from their reports.
    error : RunError, optional
        The error that the run failed with; some ranks may have no report then.
    predicted : Prediction, optional
        The prediction made before the run.
    batch_digest : int, optional
        Digest of the batch, if the ranks were asked for digests of the layers.
    """
    ended = [each for _, ends in runs for each in ends]
    last = [(replica, ends[-1]) for replica, (_, ends) in enumerate(runs) if ends]
    ranks = [rank for _, each in last for rank in each.reports]
    if len(runs) > 1:  # each run has one rank, identified by the number of its replica
        ranks = [replace(rank, rank=replica) for replica, each in last for rank in each.reports]
    asked = [rank.usage for each in ended for rank in each.reports]
    starts = [rank.started for rank in ranks if rank.started is not None]
    launched = min(each.launched for _, each in last)
    return Report(
        channel=channel,
        workers=manifest.workers,
        replicas=len(runs),
        samples=sum(spec.samples for spec, _ in runs),
        layers=manifest.layers,
        connections=manifest.connections,
        wall_s=wall_s,
        launch_s=max(starts, default=launched) - launched,
        load_s=max((rank.load_s for rank in ranks), default=0.0),
        compute_s=max((rank.compute_s for rank in ranks), default=0.0),
        peak_rss_bytes=max((rank.peak_rss_bytes for rank in ranks), default=0),
        row_sends=manifest.volumes.row_sends,
        usage=sum(asked, usage),
        attempts=max(max(spec.attempt + 1, len(ends)) for spec, ends in runs),
        simd=ranks[0].simd if ranks else kernels.simd_path(),
        wire=runs[0][0].settings.wire,
        resumed_at=max(spec.resume_at for spec, _ in runs),
        ranks=ranks,
        memory_mb=last[0][1].memory_mb,
        coordinators=[each.coordinator for _, each in last if each.coordinator is not None],
        earlier=_earlier([pair for _, ends in runs for pair in itertools.pairwise(ends)]),
        earlier_errors=[each.error.record() for _, ends in runs for each in ends[:-1] if each.error is not None],
        coordinator_init_s=sum(each.coordinator_init_s for _, each in last),
        predicted=predicted,
        error=None if error is None else error.record(),
        digests=None if batch_digest is None or error is not None else _digests(manifest, ranks, batch_digest),
    )


def _digests(manifest: Manifest, ranks: Sequence[RankReport], batch: int) -> Digests:
    """Return the digests of a run that succeeded, from those of its ranks or replicas."""
    layers = added(rank.digests for rank in ranks)
    return Digests(manifest.network_digest.hex(), manifest.plan_digest.hex(), batch, layers)


def _earlier(pairs: Sequence[tuple[Ended, Ended]]) -> EarlierFunctions:
    """Return the functions of attempts, each with the attempt that followed it."""
    ended = [each for each, _ in pairs]
    workers = [
        rank.init_s + rank.lived_s + _stayed_s(rank, each, following)
        for each, following in pairs
        for rank in each.reports
        if rank.lived_s is not None
    ]
    spans = [each.coordinator[1] - each.coordinator[0] for each in ended if each.coordinator is not None]
    return EarlierFunctions(
        len(workers),
        sum(billed_s(max(0.0, seconds)) for seconds in workers),
        len(spans),
        sum(billed_s(max(0.0, seconds)) for seconds in spans) + sum(each.coordinator_init_s for each in ended),
    )


def _stayed_s(rank: RankReport, ended: Ended, following: Ended) -> float:
    """Return the seconds that a straggler's function stayed busy after its report, until all ranks ran again."""
    error = ended.error
    if not isinstance(error, StragglerError) or error.rank != rank.rank or ended.memory_mb is None:
        return 0.0
    starts = [other.started for other in following.reports if other.started is not None]
    return max(0.0, max(starts, default=0.0) - (rank.ended or 0.0))
