"""The simulated `queue` channel: SNS topics that deliver to SQS queues, under virtual time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from fsd_inference.channels.base import Expected, Kind
from fsd_inference.engine.messages import Step
from fsd_inference.forecast.frames import Batch, Outgoing, units
from fsd_inference.limits import BATCH_ENTRIES, SENDERS
from fsd_inference.simulator.channels import Incoming, StepModel
from fsd_inference.simulator.rank import Rank
from fsd_inference.simulator.scenario import Scenario
from fsd_inference.simulator.services import Listener, Services
from fsd_inference.token_bucket import TokenBucket, share_of_publishing
from fsd_inference.usage import EACH_MESSAGE, RECEIVED_MESSAGES

_EACH = f"sns.publish{EACH_MESSAGE}"


class QueueModel(StepModel):
    """A model of SNS topics, which share the account's quota of messages, and of SQS queues that ranks poll."""

    def __init__(self, services: Services, scenario: Scenario, ranks: list[Rank], listener: Listener) -> None:
        super().__init__(services, scenario, ranks, listener)
        rate, burst_s = scenario.timing["account.messages_per_s"], scenario.timing["throttle.burst_s"]
        self._account = TokenBucket(rate, rate * burst_s)
        self.shares = [share_of_publishing(rate, len(ranks)) for _ in ranks]
        self._senders = [[0.0] * SENDERS for _ in ranks]

    def send(self, rank: Rank, outgoing: Outgoing, key: Expected, call: Callable[..., None], *rest: Any) -> None:
        """See `ChannelModel`."""
        services, now = self.services, self.services.clock.now
        usage, sent, senders = services.usage, outgoing.sent[rank.number], self._senders[rank.number]
        arrivals: list[float] = []
        last = now
        share = self.shares[rank.number]
        for batch in sent.batches:
            start, deliveries = max(now, senders[0]), batch.last - batch.first
            start += share.wait_s(start, batch.messages)
            if not self._account.admits(start, batch.messages):
                admitted = self._when_admitted(share, batch, start)
                if admitted is None:
                    self.refused(rank, "SNS refused a publish")
                    return
                start = admitted
            end = start + services.request_s(rank, "publish", batch.size, 0.0, deliveries, start)
            heapq.heapreplace(senders, end)
            arrivals += [end + latency for latency in services.draws.latencies("deliver", deliveries)]
            last = max(last, end)
        usage.requests["sns.publish"] += len(sent.batches)
        usage.billed_units["sns.publish"] += sum(batch.units for batch in sent.batches)
        usage.billed_units[_EACH] += sum(batch.message_units for batch in sent.batches)
        if key.kind is Kind.GATHER:
            self._deliver_gather(rank, outgoing, max(arrivals))
        else:
            self.on_its_way(outgoing, key, sent.first, arrivals)
        services.clock.at(last, call, *rest)

    def _when_admitted(self, share: TokenBucket, batch: Batch, since: float) -> float | None:
        """Return the time at which SNS admits a batch that it refused at `since`; None if the stall clock expires."""
        services, tried, start = self.services, 1, since
        while (pause_s := services.pause_s(tried, start - since)) is not None:
            start, tried = start + pause_s, tried + 1
            start += share.wait_s(start, batch.messages)
            services.count("sns.publish", batch.units, repeat=True)
            services.usage.billed_units[_EACH] += batch.message_units
            if self._account.admits(start, batch.messages):
                return start
        return None

    def _deliver_gather(self, rank: Rank, outgoing: Outgoing, arrived: float) -> None:
        """Deliver a gather message, available at `arrived`, to its only target with one poll."""
        services, target = self.services, self.ranks[int(outgoing.targets[0])]
        size = float(outgoing.sizes.sum())
        services.count("sqs.receive", units(size))
        services.usage.billed_units[RECEIVED_MESSAGES] += sum(map(units, outgoing.sizes.tolist()))
        services.usage.received_bytes += round(size)
        receive_s = services.request_s(target, "receive", 0.0, size, outgoing.sizes.size, arrived)
        self.tell(rank, outgoing, arrived + receive_s)

    def receive(self, rank: Rank, step: Step, incoming: Incoming, since: float) -> float:  # noqa: ARG002
        """Return the time at which all messages of the step are received, by polls of at most ten messages each."""
        services, usage = self.services, self.services.usage
        _, times, sizes = incoming.of(rank.number)
        arrivals = sorted(zip(times, sizes, strict=True))
        poll_s, now, taken, polls, empty, billed = self.scenario.limits.poll_s, since, 0, 0, 0, 0
        while taken < len(arrivals):
            if arrivals[taken][0] > now:
                empty += int((arrivals[taken][0] - now) / poll_s)
                now = arrivals[taken][0]
            last, size = taken, 0.0
            for time, of_message in arrivals[taken : taken + BATCH_ENTRIES]:
                if time > now:
                    break
                size += of_message
                last += 1
            now += services.request_s(rank, "receive", 0.0, size, last - taken, now)
            billed += units(size)
            polls += 1
            taken = last
        usage.requests["sqs.receive"] += polls + empty
        usage.billed_units["sqs.receive"] += billed + empty
        usage.billed_units[RECEIVED_MESSAGES] += sum(map(units, sizes))
        usage.empty_polls += empty
        usage.received_bytes += round(sum(sizes))
        return now
