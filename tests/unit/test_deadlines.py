"""Requests and retries beside a deadline: none outlives it, in whatever thread, and cleaning up has time of its own."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from fsd_inference import deadlines, retrying
from fsd_inference.config import RetrySettings
from fsd_inference.errors import StoreError
from fsd_inference.threads import ThreadPool, Waitable, start
from fsd_inference.usage import UsageMeter


class Service:
    """A service that never answers, until the test is over."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.asked = 0

    def silent(self) -> str:
        self.asked += 1
        self.over.wait(60)
        return "too late"

    def failing(self) -> str:
        self.asked += 1
        raise OSError("refused")


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.over.set()


def send(call: Callable[[], str], meter: UsageMeter | None = None, attempts: int = 6) -> str:
    return retrying.send(
        "s3.get",
        call,
        meter=meter or UsageMeter(),
        retry=RetrySettings(attempts=attempts, base_s=0.01, cap_s=0.01),
        errors=(OSError,),
        classify=lambda error, _: StoreError(f"cannot get it: {error}", retryable=isinstance(error, OSError)),
    )


def test_a_request_without_an_answer_ends_at_the_deadline_and_is_not_repeated(service: Service) -> None:
    meter = UsageMeter()
    with (
        deadlines.within(0.1),
        pytest.raises(StoreError, match=r"cannot get it: the service did not answer within 0\.\d s") as caught,
    ):
        send(service.silent, meter)
    assert caught.value.retryable
    assert service.asked == meter.snapshot().requests["s3.get"] == 1
    assert not service.over.is_set()


def test_nothing_is_sent_after_the_deadline(service: Service) -> None:
    meter = UsageMeter()
    with deadlines.within(-1.0), pytest.raises(StoreError, match="no time left before the deadline"):
        send(service.silent, meter)
    assert service.asked == meter.snapshot().requests.total() == 0


def test_no_retry_is_waited_for_that_would_come_after_the_deadline(service: Service) -> None:
    with deadlines.within(0.05), pytest.raises(StoreError):
        send(service.failing, attempts=10_000)
    assert service.asked < 1000


def test_an_answer_and_an_error_come_through_from_beside_a_deadline(service: Service) -> None:
    with deadlines.within(5.0):
        assert send(lambda: "value") == "value"
        with pytest.raises(StoreError, match="refused"):
            send(service.failing, attempts=3)
    assert service.asked == 3


def test_a_deadline_that_no_request_can_outlive_takes_no_thread() -> None:
    with deadlines.within(deadlines.LONGEST_REQUEST_S + 5):
        assert send(lambda: threading.current_thread().name) == threading.current_thread().name
    assert send(lambda: threading.current_thread().name) == threading.current_thread().name


def test_the_innermost_block_counts_and_ends() -> None:
    assert deadlines.left_s() == math.inf
    with deadlines.within(-1.0):
        assert deadlines.left_s() < 0
        with deadlines.cleaning_up():
            assert 0 < deadlines.left_s() <= deadlines.CLEANUP_S
        assert deadlines.left_s() < 0
    assert deadlines.left_s() == math.inf


def test_threads_and_pools_work_beside_the_deadline_of_who_gave_them_work() -> None:
    found: list[float] = []

    def note() -> None:
        found.append(deadlines.left_s())

    with ThreadPool(1) as pool:
        for limit in (50.0, 500.0):
            with deadlines.within(limit):
                found += [pool.submit(deadlines.left_s).result(), *pool.map(lambda _: deadlines.left_s(), range(1))]
                thread = Waitable(note, "other")
                start(thread)
                assert thread.ended.wait(10)
        assert pool.submit(deadlines.left_s).result() == math.inf
    assert found == pytest.approx([50.0] * 3 + [500.0] * 3, abs=20)


def test_a_thread_is_forgotten_with_what_it_works_on() -> None:
    thread = threading.Thread(target=time.time)
    start(thread)
    thread.join()
    assert "run" not in vars(thread)
