"""The frames that ranks exchange in each step of a simulated run, cached until every rank has sent its own."""

from __future__ import annotations

from fsd_inference.engine.messages import Step
from fsd_inference.forecast.frames import NOTHING, ChannelLimits, EdgeArrays, Outgoing, step_frames
from fsd_inference.forecast.payloads import Payloads
from fsd_inference.partitioning.plan import ExchangePlan


class StepTraffic:
    """The frames that ranks send and the bytes that they receive in each step.

    A step's frames are computed when they are first needed and dropped when every rank has sent its own.

    Parameters
    ----------
    plan : ExchangePlan
    payloads : Payloads
        Sizes of what the plan's edges carry.
    limits : ChannelLimits
    queue : bool
        True to send batches of messages over `queue`, False to send objects.
    """

    def __init__(self, plan: ExchangePlan, payloads: Payloads, limits: ChannelLimits, *, queue: bool) -> None:
        self._queue = queue
        self._payloads, self._limits = payloads.exchanges, limits
        self._exchanges = [EdgeArrays.of(exchange) for exchange in plan.exchanges]
        self._received = [
            exchange.received(sizes, plan.workers).tolist()
            for exchange, sizes in zip(self._exchanges, payloads.exchanges, strict=True)
        ]
        self._steps: dict[Step, Outgoing] = {}
        self._unsent: dict[Step, int] = {}  # number of ranks that have yet to send their frames of a step

    def of(self, step: Step) -> Outgoing:
        """Return the frames that all ranks send after a step; none after the last layer."""
        layer, micro_batch = step
        if layer >= len(self._exchanges):
            return NOTHING
        if step not in self._steps:
            self._steps[step] = step_frames(
                self._exchanges[layer], self._payloads[layer][:, micro_batch], self._limits, queue=self._queue
            )
            self._unsent[step] = len(self._steps[step].sent)
        return self._steps[step]

    def one_has_sent(self, step: Step) -> None:
        """Record that one rank has sent its frames of a step; drop the step's frames after the last one."""
        self._unsent[step] -= 1
        if not self._unsent[step]:
            del self._steps[step], self._unsent[step]

    def received_bytes(self, step: Step, rank: int) -> float:
        """Return the payload bytes that a rank receives before a step."""
        received: float = self._received[step.layer - 1][rank][step.micro_batch] if step.layer else 0.0
        return received
