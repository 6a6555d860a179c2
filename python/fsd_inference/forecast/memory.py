"""The memory formula: what a rank holds at most, from what it owns and what it exchanges."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fsd_inference.forecast.payloads import Payloads
from fsd_inference.partitioning.plan import Edge, ExchangePlan

PROCESS_BYTES = 42e6
"""An interpreter with the engine's libraries (measured, local processes, 2026-11)."""
FUNCTION_BYTES = 100e6
"""The same in a function: 68 MB with the services' clients (measured, 2026-11), the rest assumed: Lambda's runtime."""
MARGIN = 1.25
"""What a function is given over the estimate, which was within 16% of the peaks of 32 runs."""
# What the engine's steps hold at once gives most of these; those of frames were fitted on 20 runs of local processes
# (random networks of 256 to 16,384 neurons, RadiX-Net of 1,024 and 4,096; P = 1 to 8; 1 to 4 micro-batches), none of
# which is among those that `make bench BENCH=memory` checks.
_SHARD_COPIES = 1.5
_PANEL_COPIES = 1.0
_RECEIVED_COPIES = 6.6  # as they came, as the inbox keeps them, unpacked; and some of the next step's
_SENT_COPIES = 7.4  # packed, as frames, and as the channel has them
_RESULT_COPIES = 3.0  # the blocks, their sum, and the object
_VALUE_BYTES = 4  # float32
_RESULT_BYTES = 5  # of a value with its place


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes that the largest rank holds at once, each part where it is most.

    Attributes
    ----------
    shard : float
    panels : float
        Activations of a step: what the layer reads, and what the one before has made or it makes itself, the larger;
        dense, for the samples that are alive. Of micro-batches that wait, what they made last.
    received, sent : float
        Packed rows that a step gets, and those that it sends, once for all that want them.
    ended : float
        Activations of the last layer.
    result : float
        Its values that are not zero, packed.
    """

    shard: float
    panels: float
    received: float
    sent: float
    ended: float
    result: float


def function_mb(
    plan: ExchangePlan,
    inputs: Sequence[int],
    shard_bytes: float,
    payloads: Payloads,
    *,
    base_bytes: float = FUNCTION_BYTES,
) -> float:
    """Return the memory in MB (2**20 bytes) that a function should have: `rank_bytes` and the margin."""
    return MARGIN * rank_bytes(plan, inputs, shard_bytes, payloads, base_bytes=base_bytes) / 2**20


def rank_bytes(
    plan: ExchangePlan,
    inputs: Sequence[int],
    shard_bytes: float,
    payloads: Payloads,
    *,
    base_bytes: float = PROCESS_BYTES,
) -> float:
    """Return the bytes that the largest rank holds at most.

    base + 1.5 shards + the larger of panels + 6.6 x received + 7.4 x sent (while it computes) and ended + 3 x result
    (at its end): see `Held`.

    Parameters
    ----------
    plan : ExchangePlan
    inputs : sequence of int
        Neurons that each layer reads.
    shard_bytes : float
        Of the largest shard.
    payloads : Payloads
        What the plan's edges carry; `dense_payloads` where nothing is known of the inputs.
    base_bytes : float
        What a process holds without any of these.
    """
    held = held_bytes(plan, inputs, shard_bytes, payloads)
    computing = _PANEL_COPIES * held.panels + _RECEIVED_COPIES * held.received + _SENT_COPIES * held.sent
    ending = _PANEL_COPIES * held.ended + _RESULT_COPIES * held.result
    return base_bytes + _SHARD_COPIES * held.shard + max(computing, ending)


def held_bytes(plan: ExchangePlan, inputs: Sequence[int], shard_bytes: float, payloads: Payloads) -> Held:
    """Return the bytes that the largest rank holds, part by part; see `rank_bytes`."""
    # Rows are dealt evenly, as connections are.
    own = np.array([0.0, *inputs[1:], inputs[-1]]) / plan.workers
    got = np.array([0.0, *(_most(exchange, [edge.rows.size for edge in exchange]) for exchange in plan.exchanges)])
    sizes = [each.max(axis=1, initial=0.0).tolist() for each in payloads.exchanges]
    received = [_most(exchange, each) for exchange, each in zip(plan.exchanges, sizes, strict=True)]
    sent = [_most(exchange, each, sent=True) for exchange, each in zip(plan.exchanges, sizes, strict=True)]
    widths = np.array(inputs, np.float64)
    columns = np.minimum(own[:-1] + got, widths)
    # Which inputs a rank reads is not in the plan: about the share that it reads of the next layer's.
    columns[0] = widths[0] * (columns[1] / widths[1] if widths.size > 1 else 1.0)
    live = np.array([1.0, *payloads.live])
    here, all_samples = max(payloads.samples), sum(payloads.samples)
    # What the layer before made is released before the layer makes anything.
    step = here * columns + all_samples * np.maximum(own[:-1], own[1:])
    density = payloads.density[-1] if payloads.density else 1.0
    return Held(
        shard=shard_bytes,
        panels=_VALUE_BYTES * float((live * step).max()),
        received=max(received, default=0.0),
        sent=max(sent, default=0.0),
        ended=_VALUE_BYTES * float(live[-1] * own[-1]) * all_samples,
        result=_RESULT_BYTES * density * float(own[-1]) * all_samples,
    )


def _most(exchange: Sequence[Edge], amounts: Sequence[float], *, sent: bool = False) -> float:
    """Return the most that one rank gets, or sends, where each edge brings its amount."""
    total: defaultdict[int, float] = defaultdict(float)
    for edge, amount in zip(exchange, amounts, strict=True):
        for rank in (edge.source,) if sent else edge.targets:
            total[rank] += amount
    return max(total.values(), default=0.0)
