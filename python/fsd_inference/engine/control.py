"""Control frames: the gather and abort messages between ranks."""

from __future__ import annotations

from collections.abc import Sequence

from fsd_inference.channels.base import Frame, Kind
from fsd_inference.engine.spec import RunSpec
from fsd_inference.engine.worker import abort_payload
from fsd_inference.errors import RunError
from fsd_inference.kernels import seal


def seal_control(
    spec: RunSpec, source: int, kind: Kind, layer: int, targets: Sequence[int], part: int, parts: int, payload: bytes
) -> Frame:
    """Return a control frame from `source` to `targets` with part `part` of `parts` as its payload."""
    run, plan = bytes.fromhex(spec.run), bytes.fromhex(spec.plan)
    body = seal(run, spec.attempt, plan, source, kind, layer, targets, part, parts, payload)
    return Frame(kind, layer, 0, tuple(targets), body)


def abort_frame(spec: RunSpec, source: int, error: RunError) -> Frame | None:
    """Return the frame that reports `error` to all ranks but `source`; None if there are no others."""
    others = [rank for rank in range(spec.settings.workers) if rank != source]
    if not others:
        return None
    return seal_control(spec, source, Kind.ABORT, 0, others, 0, 1, abort_payload(error))
