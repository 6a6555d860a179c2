"""Predictions of runs on a stack: its first run starts cold, and its topics say how large a message may be."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from fsd_inference.config import RunSettings
from fsd_inference.forecast.payloads import Payloads
from fsd_inference.forecast.predicting import Carried, predict_runs
from fsd_inference.forecast.timing import load_timing
from fsd_inference.network import random_network
from fsd_inference.partitioning import Edge, ExchangePlan, Partition, exchange_plan
from fsd_inference.prediction import Prediction
from fsd_inference.stack_description import StackSpec

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
