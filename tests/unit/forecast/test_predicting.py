"""Predictions of runs on a stack: its first run starts cold, and its topics say how large a message may be."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from fsd_inference.config import RunSettings
from fsd_inference.forecast.payloads import Payloads
from fsd_inference.forecast.predicting import Carried, choose_checkpoints, predict_runs
from fsd_inference.forecast.timing import load_timing
from fsd_inference.limits import HEARTBEAT_S, PROGRESS_S
from fsd_inference.network import Network, random_network
from fsd_inference.partitioning import Edge, ExchangePlan, Partition, exchange_plan
from fsd_inference.prediction import Prediction
from fsd_inference.stack_description import FunctionsSpec, LaneSpec, StackSpec, WorkerFunction

NETWORK = random_network([16] * 4, connections=4)
X = sparse.csr_array(np.ones((6, 16), np.float32))


def predicted(*, is_warm: bool, slices: int) -> Prediction:
    partition = Partition(1, tuple(np.zeros(width, np.int32) for width in NETWORK.widths[1:]))
    stack = StackSpec("s", None, "us-east-1", (), ("runs",), "networks")
    carried = Carried(
        partition, exchange_plan(NETWORK, partition), "serial", RunSettings(), stack, memory_mb=2048, is_warm=is_warm
    )
    return predict_runs(NETWORK, carried, X, [6 // slices] * slices)


@pytest.mark.parametrize("slices", [1, 2])
def test_a_first_run_is_billed_for_init_phases(slices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cold, warm = (predicted(is_warm=is_warm, slices=slices).functions for is_warm in (False, True))
    init_s, begin_s = load_timing()["init.s"], load_timing().latency("cold").mean_s
    assert [function.memory_mb for function in cold] == [2048, 512]
    # A cold worker has its init phase; its coordinator that, and the wait for both of them.
    assert cold[0].seconds - warm[0].seconds == pytest.approx(slices * init_s)
    assert cold[1].seconds - warm[1].seconds == pytest.approx(slices * (init_s + 2 * begin_s))


def deep(channel: str, lanes: int, *, timeout_s: float, every: int) -> tuple[Network, Carried, Payloads]:
    """A run on two functions: 60 layers, each of which sends 100 MB, in attempts of `timeout_s` seconds."""
    network = random_network([16] * 61, connections=4)
    owners = tuple(np.repeat(np.arange(2, dtype=np.int32), 8) for _ in network.widths[1:])
    arn = "arn:aws:lambda:us-east-1:000000000000:function:s-"
    functions = FunctionsSpec(f"{arn}c", (WorkerFunction(2048, f"{arn}w"),), "http://127.0.0.1:9/q", timeout_s)
    lane = LaneSpec(("arn:aws:sns:us-east-1:0:t",), ("http://127.0.0.1:9/0", "http://127.0.0.1:9/1"))
    stack = StackSpec("s", None, "us-east-1", (lane,) * lanes, ("runs",), "networks", functions=functions)
    edge = Edge(0, (1,), np.arange(8, dtype=np.int32))
    plan = ExchangePlan(2, ((edge,),) * 59)
    settings = RunSettings(workers=2, checkpoint_every=every)
    carried = Carried(Partition(2, owners), plan, channel, settings, stack, memory_mb=2048, is_warm=True)
    return network, carried, Payloads((6,), (np.array([[1e8]]),) * 59, 100.0, (1.0,) * 59, (1.0,) * 59)


@pytest.mark.parametrize("channel", ["queue", "object"])
def test_a_run_that_outlives_its_functions_is_predicted_with_its_attempts(channel: str) -> None:
    def found(timeout_s: float, lanes: int = 2, every: int = 4) -> Prediction:
        network, carried, known = deep(channel, lanes, timeout_s=timeout_s, every=every)
        return predict_runs(network, carried, X, [6], known)

    whole, parts, bare = found(1800.0), found(120.0), found(1800.0, every=0)
    assert (whole.attempts, bare.attempts) == (1, 1)
    assert whole.checkpoint_bytes == 2 * bare.checkpoint_bytes + 14 * 2 * 1e8  # 16 rows a layer, of which 8 are sent
    longer = written_over_time(whole) - written_over_time(bare)
    assert whole.usage.requests["s3.put"] == pytest.approx(bare.usage.requests["s3.put"] + 14 * 2 + longer, abs=2)
    assert parts.attempts > 2
    assert [function.invocations for function in parts.functions] == [2 * parts.attempts, parts.attempts]
    assert parts.usage.requests["lambda.invoke"] == 3 * parts.attempts
    assert parts.usage.requests["sqs.purge"] == (2 * (parts.attempts - 1) if channel == "queue" else 0)
    again = parts.attempts - 1
    assert whole.usage.frames < parts.usage.frames <= whole.usage.frames * (1 + 5 * again / 59)
    assert parts.wall_s is not None
    assert whole.wall_s is not None
    assert parts.wall_s > whole.wall_s
    assert Prediction.from_json(parts.to_json()) == parts
    # With a single lane, later attempts wait until its queues are purged.
    one, two = (found(240.0, lanes=lanes) for lanes in (1, 2))
    assert one.wall_s is not None
    assert two.wall_s is not None
    assert one.attempts > 1
    assert (one.wall_s >= two.wall_s + 60) == (channel == "queue")


def written_over_time(prediction: Prediction) -> int:
    """Return how often rank 0 says how far it is, and the coordinator that it lives."""
    workers, _ = prediction.functions
    return sum(math.floor(workers.seconds / 2 / every_s) for every_s in (PROGRESS_S, HEARTBEAT_S))


def test_a_prediction_chooses_checkpoints_only_for_runs_that_need_them() -> None:
    network, carried, known = deep("object", 1, timeout_s=120.0, every=0)
    every = choose_checkpoints(network, carried, known, 1)
    assert every > 0
    chosen = predict_runs(network, replace(carried, settings=replace(carried.settings, checkpoint_every=every)), X, [6])
    assert chosen.checkpoint_every == every
    network, carried, known = deep("object", 1, timeout_s=1800.0, every=0)
    assert choose_checkpoints(network, carried, known, 1) == 0


@pytest.mark.parametrize(("message_bytes", "publishes"), [(256 * 1024, 16), (1024 * 1024, 4)])
def test_publishes_are_counted_by_the_message_size_of_the_stack(message_bytes: int, publishes: int) -> None:
    """3 MB in base64 are 4 MB: 16 messages of 256 KiB, or 4 of 1 MiB, which bill the same units of 64 KiB."""
    owners = tuple(np.repeat(np.arange(2, dtype=np.int32), 8) for _ in NETWORK.widths[1:])
    edge = Edge(0, (1,), np.arange(8, dtype=np.int32))
    stack = StackSpec("s", None, "us-east-1", (), ("runs",), "networks", message_bytes=message_bytes)
    carried = Carried(
        Partition(2, owners), ExchangePlan(2, ((edge,), ())), "queue", RunSettings(workers=2), stack,
        memory_mb=2048, is_warm=True,
    )  # fmt: skip
    known = Payloads((6,), (np.array([[3e6]]), np.zeros((0, 1))), 100.0, (1.0,) * 2, (1.0,) * 2)
    usage = predict_runs(NETWORK, carried, X, [6], known).usage
    gathers = 1  # rank 1 tells rank 0 that it has ended
    assert usage.requests["sns.publish"] == publishes + gathers
    assert usage.billed_units["sns.publish"] in range(62, 66 + gathers)
