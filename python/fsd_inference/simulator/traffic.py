"""The frames of each step of a simulated run, kept until all ranks have sent them."""

from __future__ import annotations

from fsd_inference.engine.messages import Step
from fsd_inference.forecast.frames import NOTHING, ChannelLimits, EdgeArrays, Outgoing, step_frames
from fsd_inference.forecast.payloads import Payloads
from fsd_inference.partitioning.plan import ExchangePlan


class StepTraffic:
    """What ranks send and get of each step; what they send is kept until all have sent it.

    Parameters
    ----------
    plan : ExchangePlan
    payloads : Payloads
    limits : ChannelLimits
    queue : bool
        Whether in batches of messages, otherwise as objects.
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
        self._unsent: dict[Step, int] = {}  # ranks that are still to send of a step

    def of(self, step: Step) -> Outgoing:
        """Return what ranks send of a step: nothing of the last layer."""
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
        """Note that one of the ranks that send of a step has done so."""
        self._unsent[step] -= 1
        if not self._unsent[step]:
            del self._steps[step], self._unsent[step]

    def received_bytes(self, step: Step, rank: int) -> float:
        """Return the payload bytes that a rank gets before a step."""
        received: float = self._received[step.layer - 1][rank][step.micro_batch] if step.layer else 0.0
        return received
