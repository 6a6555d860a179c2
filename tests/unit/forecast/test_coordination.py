"""Predicted requests of coordinator and client, and the number of polls that their backoff makes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsd_inference.config import Clocks, RunSettings
from fsd_inference.forecast import coordination
from fsd_inference.forecast.coordination import count_coordination
from fsd_inference.forecast.counts import count_own
from fsd_inference.forecast.frames import ChannelLimits
from fsd_inference.forecast.payloads import dense_payloads
from fsd_inference.limits import REPORT_BACKOFF, STATUS_BACKOFF, Backoff
from fsd_inference.partitioning.plan import ExchangePlan
from fsd_inference.usage import Usage


@given(
    seconds=st.floats(0, 900), pauses=st.sampled_from([STATUS_BACKOFF, REPORT_BACKOFF])
)  # fmt: skip
def test_the_number_of_polls_is_that_of_backing_off_poll_by_poll(seconds: float, pauses: Backoff) -> None:
    polls, now, pause = 0, 0.0, pauses[0]
    while now < seconds:
        polls, now = polls + 1, now + pause
        pause = pauses.after(pause)
    assert coordination._polls_within(seconds, pauses) == pytest.approx(polls, abs=2, rel=0.01)


def counted(wall_s: float, run_s: float, *, is_warm: bool = False, workers: int = 4) -> Usage:
    settings = RunSettings(workers=workers, clocks=Clocks(start_s=30))
    return count_coordination(settings, wall_s=wall_s, run_s=run_s, is_warm=is_warm)


def test_a_longer_run_is_looked_at_more_often() -> None:
    short, long = counted(2, 1), counted(62, 61)
    assert short.requests["lambda.invoke"] == long.requests["lambda.invoke"] == 5
    assert short.requests["s3.put"] == 6
    assert long.requests["s3.put"] == 6 + 30 + 12  # rank 0 says how far it is, the coordinator that it lives
    assert (short.requests["s3.list"], long.requests["s3.list"]) == (
        1,
        3,
    )  # of tickets, after the start and the stall clock
    assert counted(62, 61, workers=1).requests["s3.list"] == 2
    assert long.requests["s3.get"] - short.requests["s3.get"] == pytest.approx(2 * 30 + 63, abs=4)
    assert long.requests["sqs.receive"] == long.empty_polls == 61
    assert long.requests["s3.head"] == pytest.approx(4 * 61 + 12, abs=5)


def test_warm_functions_have_their_shards() -> None:
    cold, warm = counted(5, 4), counted(5, 4, is_warm=True)
    assert cold.requests["s3.get"] - warm.requests["s3.get"] == 4 + 1  # each rank the description; one manifest
    assert (cold.requests["lambda.settings"], warm.requests["lambda.settings"]) == (3, 0)
    plan = ExchangePlan(4, ((),) * 3)
    payloads = dense_payloads(plan, samples=10)
    shard_bytes = [1, 1 << 20, (1 << 20) + 1, 5 << 20]
    cold, warm = (
        count_own(payloads, RunSettings(workers=4), ChannelLimits(), shard_bytes, is_warm=is_warm)
        for is_warm in (False, True)
    )
    assert dict((cold - warm).requests) == {"s3.get": 4 + 1 + 1 + 2 + 5}  # manifests, and shards by ranges of 1 MB
