"""The report of a distributed run, from what its ranks say of themselves."""

from __future__ import annotations

from collections.abc import Sequence

from fsd_inference import kernels
from fsd_inference.engine.ending import Ended
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import RunError
from fsd_inference.partition import Manifest
from fsd_inference.records import Usage
from fsd_inference.report import Report


def run_report(
    channel: str,
    manifest: Manifest,
    spec: RunSpec,
    ends: Sequence[Ended],
    *,
    wall_s: float,
    usage: Usage,
    error: RunError | None = None,
) -> Report:
    """Return the report of a run.

    Parameters
    ----------
    channel, manifest, spec
        What was run.
    ends : sequence of Ended
        How its attempts ended; the last is the one to report.
    wall_s : float
        From the call of `infer` to its end.
    usage : Usage
        What everyone but the ranks asked for.
    error : RunError, optional
        How the run failed: there may be ranks without a report then.
    """
    last = ends[-1]
    ranks = last.reports
    asked = [Usage.from_json(rank["usage"]) for ended in ends for rank in ended.reports]
    return Report(
        channel=channel,
        workers=manifest.workers,
        samples=spec.samples,
        layers=manifest.layers,
        connections=manifest.connections,
        wall_s=wall_s,
        launch_s=max((rank["started"] for rank in ranks), default=last.launched) - last.launched,
        load_s=max((rank["load_s"] for rank in ranks), default=0.0),
        compute_s=max((rank["compute_s"] for rank in ranks), default=0.0),
        peak_rss_bytes=max((rank["peak_rss_bytes"] for rank in ranks), default=0),
        row_sends=manifest.volumes.row_sends,
        usage=sum(asked, usage),
        attempts=max(spec.attempt + 1, len(ends)),
        simd=ranks[0]["simd"] if ranks else kernels.simd_path(),
        ranks=ranks,
        memory_mb=last.memory_mb,
        coordinator=last.coordinator,
        error=None if error is None else error.record(),
    )
