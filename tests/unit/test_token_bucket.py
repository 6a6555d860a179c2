"""Token buckets as the pace of publishing: those of a bucket filled step by step, never above rate and burst."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsd_inference.channels.publishing import PublishingShare
from fsd_inference.limits import BATCH_ENTRIES
from fsd_inference.token_bucket import TokenBucket, share_of_publishing

# Seconds since the request before, and messages, of each request of one rank.
requests = st.lists(st.tuples(st.floats(0, 3), st.integers(1, BATCH_ENTRIES)), min_size=1, max_size=60)


def granted(bucket: TokenBucket, asked: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """Return when the requests, each made at a time after the one before, get their tokens, and how many."""
    now, found = 0.0, []
    for gap, count in asked:
        now += gap
        found.append((now + bucket.wait_s(now, count), count))
    return found


@given(requests, st.floats(0.5, 500), st.floats(BATCH_ENTRIES, 600))
def test_no_window_has_more_than_its_rate_and_the_burst(
    asked: list[tuple[float, int]], per_s: float, burst: float
) -> None:
    found = granted(TokenBucket(per_s, burst), asked)
    for first, (begin, _) in enumerate(found):
        taken = 0
        for time, count in found[first:]:
            taken += count
            assert taken <= burst + per_s * (time - begin) + 1e-6


@given(requests, st.floats(0.5, 500), st.floats(BATCH_ENTRIES, 600))
def test_a_request_waits_exactly_as_long_as_a_bucket_that_is_filled_step_by_step(
    asked: list[tuple[float, int]], per_s: float, burst: float
) -> None:
    level, time, now, expected = burst, 0.0, 0.0, []
    for gap, count in asked:
        now += gap
        if now > time:
            level, time = min(burst, level + per_s * (now - time)), now
        if level < count:
            level, time = float(count), time + (count - level) / per_s
        level -= count
        expected.append(time)
    assert [time for time, _ in granted(TokenBucket(per_s, burst), asked)] == pytest.approx(expected, abs=1e-6)


@given(st.integers(1, 1000), st.sampled_from([300, 1_500, 9_000, 30_000]), requests)
def test_all_ranks_together_keep_to_the_account_after_their_bursts(
    workers: int, quota: int, asked: list[tuple[float, int]]
) -> None:
    share = share_of_publishing(quota, workers)
    assert workers * share.per_s == pytest.approx(quota)
    assert share.burst >= BATCH_ENTRIES
    found = granted(share, asked)
    sent = sum(count for _, count in found)
    assert workers * sent <= workers * share.burst + quota * found[-1][0] + 1e-3


@given(st.lists(st.tuples(st.floats(0.1, 3), st.integers(1, 10)), max_size=60))
def test_far_from_the_quota_nothing_waits(asked: list[tuple[float, int]]) -> None:
    share = share_of_publishing(30_000, 16)  # 100 messages a second at most are far below its 1,875
    assert [time for time, _ in granted(share, asked)] == [
        sum(gap for gap, _ in asked[: number + 1]) for number in range(len(asked))
    ]


def test_threads_of_a_rank_share_one_bucket() -> None:
    share, waits = PublishingShare(100, 4, clock=lambda: 5.0), list[float]()

    def publish() -> None:
        for _ in range(50):
            waits.append(share.wait_s(10))

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # 25 messages a second for this rank, and its burst of 25 at once: batch k has its turn after 10k messages.
    assert sorted(waits) == pytest.approx([max(0.0, 10 * k - 25) / 25 for k in range(1, 201)])


def test_without_a_quota_nothing_waits() -> None:
    share = PublishingShare(None, 4, clock=lambda: pytest.fail("the clock is not needed"))
    assert share.wait_s(10) == 0.0
