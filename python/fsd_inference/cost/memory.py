"""How much memory a rank holds at most, from what it owns and what it exchanges."""

from __future__ import annotations

import numpy as np

from fsd_inference.cost.frames import Payloads
from fsd_inference.cost.work import Work
from fsd_inference.partition.plan import ExchangePlan

PROCESS_BYTES = 42e6
"""An interpreter with the engine's libraries (measured, local processes, 2026-11)."""
FUNCTION_BYTES = 100e6
"""The same in a function: 68 MB with the services' clients (measured, 2026-11), the rest assumed: Lambda's runtime."""
MARGIN = 1.25
"""What a function is given over the estimate, which is right to about a fifth."""
# Fitted on 19 runs of local processes: random networks (256 to 16,384 neurons) and RadiX-Net (1,024 and 4,096), P = 2
# to 8, 100 to 8,000 samples, 1 to 4 micro-batches; all are within 20% of the measured peaks.
_SHARD_COPIES = 1.5
_ACTIVE_COPIES = 2.7  # rows that are computed, their results and what is packed of them
_RECEIVED_COPIES = 21.0  # frames of a step as they came, those that came early, and what they unpack to
_VALUE_BYTES = 4  # float32


def rank_bytes(plan: ExchangePlan, work: Work, payloads: Payloads, *, base_bytes: float = PROCESS_BYTES) -> float:
    """Return the bytes that the largest rank holds at most.

    A + 1.5 shards + 2.7 x activations that are not zero + 21 x frames: the activations of the layer where the rank has
    most, and the frames that it gets before the layer where that is most; both of a micro-batch.

    Parameters
    ----------
    plan, work, payloads
        What is exchanged, what the ranks own, and what the edges carry.
    base_bytes : float
        A, what a process holds without any of these.
    """
    samples = max(payloads.samples)
    # Rows are dealt evenly, as connections are; the last layer is about as dense as the one before.
    widths = np.array([*work.inputs[1:], work.inputs[-1]], np.float64)
    density = np.array([*payloads.density, payloads.density[-1] if payloads.density else 1.0])
    active = float((widths * density).max()) / work.workers * samples * _VALUE_BYTES
    received = 0.0
    for exchange, sizes in zip(plan.exchanges, payloads.exchanges, strict=True):
        got = np.zeros(plan.workers)
        for edge, size in zip(exchange, sizes.max(axis=1, initial=0.0).tolist(), strict=True):
            for target in edge.targets:
                got[target] += size
        received = max(received, float(got.max()))
    shard = float(work.shard_bytes.max())
    return base_bytes + _SHARD_COPIES * shard + _ACTIVE_COPIES * active + _RECEIVED_COPIES * received
