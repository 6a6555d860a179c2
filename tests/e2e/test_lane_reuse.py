"""Runs that follow each other on one lane of an emulated stack whose purges would take a minute, as AWS's do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fsd_inference as fsd
from fsd_inference.aws.clients import Clients
from fsd_inference.aws.lanes import LaneTable, open_lanes
from fsd_inference.aws.local import temporary_stack
from fsd_inference.aws.provision import StackSettings
from fsd_inference.aws.stack import save_stack
from fsd_inference.stack_description import StackSpec
from fsd_inference.usage import UsageMeter
from tests.support.functions import functions_stack
from tests.support.processes import wait_until
from tests.support.runs import same, serial, session

pytestmark = [pytest.mark.emulator, pytest.mark.timeout(180)]

WORKERS, RUNS = 3, 10
NETWORK = fsd.random_network([96] * 5, connections=8, seed=5)
VISIBLE, HIDDEN = "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"


@dataclass
class OneLane:
    """A stack with one lane, and what its queues hold."""

    path: Path
    stack: StackSpec
    clients: Clients
    table: LaneTable

    def set_queues(self, **attributes: int) -> None:
        for url in self.stack.lanes[0].queue_urls:
            self.clients.sqs.set_queue_attributes(
                QueueUrl=url,
                Attributes={name: str(value) for name, value in attributes.items()},  # type: ignore[misc]
            )

    def messages(self, name: str) -> list[int]:
        found: list[Mapping[Any, str]] = [
            self.clients.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
            for url in self.stack.lanes[0].queue_urls
        ]
        return [int(attributes[name]) for attributes in found]

    def run(self, runs: int) -> list[fsd.Usage]:
        """Run batches one after the other, check each answer, and return what the runs used."""
        used = []
        with session(NETWORK, "queue", self.path, workers=WORKERS, partition="block", attempts=1) as distributed:
            for number in range(runs):
                x = np.random.default_rng(number).standard_normal((20, 96), np.float32)
                answer = distributed.infer(x)
                assert same(answer.outputs, serial(NETWORK, x))
                used.append(answer.report.usage)
                (lane,) = self.table.look()
                assert used[-1].retries or lane.state == "free"
        assert all("sqs.purge" not in usage.requests for usage in used)
        return used


@contextmanager
def opened(path: Path, stack: StackSpec) -> Iterator[OneLane]:
    clients, meter = Clients.of_stack(stack), UsageMeter()
    store = clients.open_bucket(stack.run_buckets[0], meter=meter)
    yield OneLane(path, stack, clients, open_lanes(store, clients, stack, meter=meter))
    store.close()
    clients.close()


@pytest.fixture
def one_lane(tmp_path: Path) -> Iterator[OneLane]:
    path = tmp_path / "stack.json"
    with temporary_stack(StackSettings("reuse", ranks=WORKERS, purge_settle_s=60.0)) as stack:
        save_stack(stack, path)
        with opened(path, stack) as made:
            yield made


def test_ten_runs_take_no_rest_and_their_messages_stay_hidden(one_lane: OneLane) -> None:
    used = one_lane.run(RUNS)
    assert one_lane.messages("VisibilityTimeout") == one_lane.messages("MessageRetentionPeriod")
    assert one_lane.messages(VISIBLE) == [0] * WORKERS
    hidden = one_lane.messages(HIDDEN)
    assert min(hidden) >= RUNS
    counted = one_lane.table.acquire("a" * 32, 0, 1.0, 0.0).hidden.total
    assert counted == max(hidden)
    received = [usage.received_bytes for usage in used]
    assert max(received) < 1.5 * min(received)


@pytest.mark.functions
def test_coordinators_hand_on_their_lane_without_a_rest(tmp_path: Path) -> None:
    path = tmp_path / "stack.json"
    with functions_stack(tmp_path, ranks=WORKERS, lanes=1, purge_settle_s=60.0) as stack, opened(path, stack) as one:
        fsd.push(NETWORK, stack=path, workers=WORKERS, partition="block")
        one.run(3)
        assert one.messages(VISIBLE) == [0] * WORKERS
        assert min(one.messages(HIDDEN)) > 0


def test_ten_runs_are_right_when_messages_of_earlier_ones_reappear(one_lane: OneLane) -> None:
    one_lane.set_queues(VisibilityTimeout=1)
    first = one_lane.run(RUNS - 1)[0]
    wait_until(lambda: one_lane.messages(HIDDEN) == [0] * WORKERS, "all messages have reappeared", 30)
    (last,) = one_lane.run(1)
    # Strays were received, and each receive request is counted.
    assert last.received_bytes > 2 * first.received_bytes
    assert last.requests["sqs.receive"] > first.requests["sqs.receive"]


@pytest.mark.long
def test_hidden_messages_expire(one_lane: OneLane) -> None:
    one_lane.set_queues(VisibilityTimeout=60, MessageRetentionPeriod=60)
    one_lane.run(2)
    assert min(one_lane.messages(HIDDEN)) > 0
    wait_until(lambda: one_lane.messages(HIDDEN) == [0] * WORKERS, "all messages have expired", 90)
    assert one_lane.messages(VISIBLE) == [0] * WORKERS
    one_lane.run(1)
