"""The memory model: peak memory of a rank, from the size of its shard and what it exchanges."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsd_inference.forecast.payloads import Payloads
from fsd_inference.partitioning.plan import Edge, ExchangePlan

PROCESS_BYTES = 42e6
"""Memory of an interpreter with the engine's libraries (measured, local processes, 2026-11)."""
FUNCTION_BYTES = 100e6
"""The same in a function: 68 MB with the services' clients (measured, 2026-11), plus an assumed 32 for the runtime."""
MARGIN = 1.25
"""Safety factor of a function's memory over the estimate, which was within 12% of the peaks of 12 runs."""
# Most of these factors follow from what the engine's steps hold at once. Those of frames were fitted on 20 runs of
# local processes (random networks of 256 to 16,384 neurons, RadiX-Net of 1,024 and 4,096; P = 1 to 8; 1 to 4
# micro-batches), none of which is among those that `make bench BENCH=memory` checks.
_SHARD_COPIES = 1.15  # with the tables of sources of columns; pieces that are being read are part of the shard
_PANEL_COPIES = 1.0
_RECEIVED_COPIES = 6.6  # bodies, frames in the inbox, unpacked rows; and some of the next step's
_SENT_COPIES = 7.4  # packed rows, frames, and the channel's request bodies
_RESULT_COPIES = 3.0  # the blocks, their concatenation, and the object
_CHECKPOINT_COPIES = 3.0  # the frames of one, its object or that of the one before, and the body of its PUT
_VALUE_BYTES = 4  # float32
_RESULT_BYTES = 5  # per nonzero value with its position


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes that the largest rank holds, by part; each part is its maximum over steps and ranks.

    Attributes
    ----------
    shard : float
        The largest shard.
    panels : float
        Dense activations of the live samples in a step: the layer's inputs, and the larger of the previous layer's and
        this layer's outputs. Waiting micro-batches hold the outputs of their last layer.
    received, sent : float
        Packed rows that a rank receives and sends in a step; rows for several targets count once.
    ended : float
        Dense activations of the last layer.
    result : float
        Nonzero values of the last layer, packed.
    checkpoint : float
        Packed rows of a layer but the last, of all samples.
    """

    shard: float
    panels: float
    received: float
    sent: float
    ended: float
    result: float
    checkpoint: float


def function_mb(
    plan: ExchangePlan,
    inputs: Sequence[int],
    shard_bytes: float,
    payloads: Payloads,
    *,
    checkpoints: bool = False,
) -> float:
    """Return the memory in MB (2**20 bytes) that a function should have: `rank_bytes` times `MARGIN`."""
    need = rank_bytes(plan, inputs, shard_bytes, payloads, base_bytes=FUNCTION_BYTES, checkpoints=checkpoints)
    return MARGIN * need / 2**20


def rank_bytes(
    plan: ExchangePlan,
    inputs: Sequence[int],
    shard_bytes: float,
    payloads: Payloads,
    *,
    base_bytes: float = PROCESS_BYTES,
    checkpoints: bool = False,
) -> float:
    """Return the peak memory in bytes of the largest rank.

    It is base + 1.15 x shard + max(panels + 6.6 x received + 7.4 x sent + 3 x checkpoint, ended + 3 x result), where
    the first term of the maximum is the peak while the rank computes and the second that at its end; see `Held`.

    Parameters
    ----------
    plan : ExchangePlan
    inputs : sequence of int
        Number of neurons that each layer reads.
    shard_bytes : float
        Size of the largest shard.
    payloads : Payloads
        Sizes of what the plan's edges carry; use `dense_payloads` if nothing is known of the inputs.
    base_bytes : float
        Memory of a process without shard, activations and frames.
    checkpoints : bool
        Whether the rank stores checkpoints.
    """
    held = held_bytes(plan, inputs, shard_bytes, payloads)
    computing = _PANEL_COPIES * held.panels + _RECEIVED_COPIES * held.received + _SENT_COPIES * held.sent
    if checkpoints:
        computing += _CHECKPOINT_COPIES * held.checkpoint
    ending = _PANEL_COPIES * held.ended + _RESULT_COPIES * held.result
    return least_bytes(held.shard, base_bytes=base_bytes) + max(computing, ending)


def least_bytes(shard_bytes: float, *, base_bytes: float = PROCESS_BYTES) -> float:
    """Return the part of `rank_bytes` that a rank takes whatever the batch: activations may all be zero."""
    return base_bytes + _SHARD_COPIES * shard_bytes


def held_bytes(plan: ExchangePlan, inputs: Sequence[int], shard_bytes: float, payloads: Payloads) -> Held:
    """Return the bytes that the largest rank holds, by part; parameters as for `rank_bytes`."""
    # Partitions balance connections, and so about balance rows.
    own = np.array([0.0, *inputs[1:], inputs[-1]]) / plan.workers
    got = np.array([0.0, *(_most(exchange, [edge.rows.size for edge in exchange]) for exchange in plan.exchanges)])
    sizes = [each.max(axis=1, initial=0.0).tolist() for each in payloads.exchanges]
    received = [_most(exchange, each) for exchange, each in zip(plan.exchanges, sizes, strict=True)]
    sent = [_most(exchange, each, sent=True) for exchange, each in zip(plan.exchanges, sizes, strict=True)]
    widths = np.array(inputs, np.float64)
    columns = np.minimum(own[:-1] + got, widths)
    # The plan does not say which inputs a rank reads; assume the share that it reads of the second layer's inputs.
    columns[0] = widths[0] * (columns[1] / widths[1] if widths.size > 1 else 1.0)
    live = np.array([1.0, *payloads.live])
    here, all_samples = max(payloads.samples), sum(payloads.samples)
    # The previous layer's outputs are released before this layer's outputs are allocated.
    step = here * columns + all_samples * np.maximum(own[:-1], own[1:])
    density = payloads.density[-1] if payloads.density else 1.0
    return Held(
        shard=shard_bytes,
        panels=_VALUE_BYTES * float((live * step).max()),
        received=max(received, default=0.0),
        sent=max(sent, default=0.0),
        ended=_VALUE_BYTES * float(live[-1] * own[-1]) * all_samples,
        result=_RESULT_BYTES * density * float(own[-1]) * all_samples,
        checkpoint=float((own[1:-1] * row_bytes(plan, payloads)).max(initial=0.0)),
    )


def row_bytes(plan: ExchangePlan, payloads: Payloads) -> NDArray[np.float64]:
    """Estimate the packed bytes of a row of each layer but the last, for all samples, by those of the rows sent."""
    samples = sum(payloads.samples)
    found = [
        float(sizes.sum()) / sum(edge.rows.size for edge in exchange)
        if exchange
        else samples * min(_VALUE_BYTES, _RESULT_BYTES * density)
        for exchange, sizes, density in zip(plan.exchanges, payloads.exchanges, payloads.density, strict=True)
    ]
    return np.array(found, np.float64)


def _most(exchange: Sequence[Edge], amounts: Sequence[float], *, sent: bool = False) -> float:
    """Return the largest total that one rank receives, or sends; `amounts` are by edge."""
    total: defaultdict[int, float] = defaultdict(float)
    for edge, amount in zip(exchange, amounts, strict=True):
        for rank in (edge.source,) if sent else edge.targets:
            total[rank] += amount
    return max(total.values(), default=0.0)
