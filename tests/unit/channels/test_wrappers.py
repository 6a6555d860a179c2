"""Channel wrappers: what each adds to the channel inside."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from fsd_inference.channels.base import Body, Channel, Expected, Frame, Kind
from fsd_inference.channels.delayed import Delayed
from fsd_inference.channels.in_process import InProcessChannel, InProcessHub
from fsd_inference.channels.wrapper import Wrapper
from fsd_inference.errors import ChannelError
from tests.support.channels.faulty import Faults, Faulty
from tests.support.channels.metered import ChannelEvent, Metered, SendTotals, SentStep


def pair() -> tuple[InProcessChannel, InProcessChannel]:
    hub = InProcessHub(2)
    return hub.channel(0), hub.channel(1)


def data(body: bytes, *targets: int, layer: int = 0) -> Frame:
    return Frame(Kind.DATA, layer, 0, targets, body)


class Held(Wrapper):
    """Ends sends when the test says so."""

    def __init__(self, inner: Channel) -> None:
        super().__init__(inner)
        self.futures: list[Future[None]] = []

    def send(self, frames: Sequence[Frame]) -> Future[None]:
        self.inner.send(frames)
        self.futures.append(Future())
        return self.futures[-1]


def test_metered_sums_sends_by_step_and_tells_events() -> None:
    now = [10.0]
    events: list[ChannelEvent] = []
    sender, receiver = pair()
    held = Held(sender)
    metered = Metered(held, on_event=events.append, clock=lambda: now[0])
    metered.send([data(b"abc", 0, 1), data(b"d", 1)])
    metered.send([data(b"ef", 1)])
    metered.send([data(b"g", 1, layer=1)])
    now[0] = 12.5
    held.futures[0].set_result(None)
    now[0] = 13.0
    held.futures[1].set_result(None)
    held.futures[2].set_exception(ChannelError("throttled"))
    first, second = SentStep(Kind.DATA, 0, 0), SentStep(Kind.DATA, 1, 0)
    assert metered.totals() == {
        first: SendTotals(frames=3, deliveries=4, wire_bytes=6, seconds=5.5),
        second: SendTotals(frames=1, deliveries=1, wire_bytes=1, seconds=3.0, failures=1),
    }
    metered.receive([], 1)
    metered.abort(Frame(Kind.ABORT, 0, 0, (0, 1), b"abort"))
    assert [(event.name, event.at, event.step, event.count, event.size) for event in events] == [
        ("send", 10.0, first, 2, 4),
        ("send", 10.0, first, 1, 2),
        ("send", 10.0, second, 1, 1),
        ("sent", 12.5, first, 2, 4),
        ("sent", 13.0, first, 1, 2),
        ("send_failed", 13.0, second, 1, 1),
        ("received", 13.0, None, 1, 3),
        ("abort", 13.0, SentStep(Kind.ABORT, 0, 0), 1, 5),
    ]
    assert len(receiver.receive([], 1)) == 5


def test_delayed_sends_end_no_earlier_than_the_delay() -> None:
    sender, receiver = pair()
    delayed = Delayed(sender, send_s=0.1)
    begun = time.monotonic()
    delayed.send([data(b"x", 1)]).result(10)
    assert time.monotonic() - begun >= 0.1
    assert receiver.receive([], 0) == [b"x"]
    delayed.close()


def test_delayed_deliveries_are_held() -> None:
    sender, receiver = pair()
    delayed = Delayed(receiver, deliver_s=0.1)
    sender.send([data(b"x", 1)])
    begun = time.monotonic()
    came: Sequence[Body] = []
    while not came:
        came = delayed.receive([], 0.02)
    assert came == [b"x"]
    assert time.monotonic() - begun >= 0.1
    delayed.close()


def test_each_delivery_is_held_from_when_it_came() -> None:
    sender, receiver = pair()
    delayed = Delayed(receiver, deliver_s=0.3)
    with ThreadPoolExecutor(1) as pool:
        sender.send([data(b"x", 1)])
        begun = time.monotonic()
        first = pool.submit(delayed.receive, [], 10)
        time.sleep(0.2)
        sender.send([data(b"y", 1)])
        sent = time.monotonic()
        came = first.result()
        assert time.monotonic() - begun >= 0.3
        if came == [b"x"]:  # on a machine that is too busy both come at once
            came += delayed.receive([], 10)
        assert came == [b"x", b"y"]
        assert time.monotonic() - sent >= 0.3
    delayed.close()


class Broken(Wrapper):
    """Fails to receive, once."""

    def __init__(self, inner: Channel) -> None:
        super().__init__(inner)
        self.left = 1

    def receive(self, expected: Sequence[Expected], timeout_s: float) -> Sequence[Body]:
        self.left -= 1
        if self.left == 0:
            raise ChannelError("cannot receive")
        return self.inner.receive(expected, timeout_s)


def test_delayed_errors_of_receives_reach_the_receiver() -> None:
    sender, receiver = pair()
    delayed = Delayed(Broken(receiver), deliver_s=0.01)
    with pytest.raises(ChannelError, match="cannot receive"):
        delayed.receive([], 10)
    sender.send([data(b"x", 1)])
    assert delayed.receive([], 10) == [b"x"]
    delayed.close()


def test_delayed_errors_surface_in_the_future_and_close_ends_what_is_held() -> None:
    sender, _ = pair()
    delayed = Delayed(sender, send_s=0.01)
    with pytest.raises(ChannelError, match="the ranks are"):
        delayed.send([data(b"x", 5)]).result(10)
    slow = Delayed(sender, send_s=60)
    future = slow.send([data(b"x", 1)])
    slow.close()
    delayed.close()
    with pytest.raises(ChannelError, match="closed"):
        future.result(10)


def jitter(seed: int) -> list[float]:
    sender, _ = pair()
    delayed = Delayed(sender, send_s=100, jitter=0.5, seed=seed)
    now = time.monotonic()
    drawn = [delayed._due(100) - now for _ in range(20)]
    delayed.close()
    return drawn


def test_jitter_is_drawn_from_the_seed() -> None:
    assert jitter(1) == pytest.approx(jitter(1), abs=5)
    assert jitter(1) != pytest.approx(jitter(2), abs=5)
    assert all(50 <= seconds <= 155 for seconds in jitter(3))


def disturbed(faults: Faults, count: int = 200) -> list[Body]:
    sender, receiver = pair()
    faulty = Faulty(receiver, faults)
    came: list[Body] = []
    for number in range(count):
        sender.send([data(b"%d" % number, 1)])
        if number % 5 == 4:
            came += faulty.receive([], 0)
    for _ in range(50):
        came += faulty.receive([], 0)
    return came


def test_faulty_without_faults_changes_nothing() -> None:
    assert disturbed(Faults()) == [b"%d" % number for number in range(200)]


def test_faulty_duplicates_reorders_and_injects_the_same_for_a_seed() -> None:
    faults = Faults(duplicate=0.2, stray=0.2, reorder=True, inject=0.2, foreign=(b"old", b"other"), seed=7)
    came = disturbed(faults)
    assert came == disturbed(faults)
    assert came != disturbed(Faults(duplicate=0.2, stray=0.2, reorder=True, inject=0.2, foreign=(b"old",), seed=8))
    counts = Counter(came)
    assert all(counts[b"%d" % number] >= 1 for number in range(200)), "nothing is lost"
    assert max(counts[b"%d" % number] for number in range(200)) >= 2
    assert counts[b"old"]
    assert counts[b"other"]
    order = [int(body) for body in came if bytes(body).isdigit()]
    assert order != sorted(order)


def test_faulty_throttles_sends_and_reads_slowly() -> None:
    sender, receiver = pair()
    faulty = Faulty(sender, Faults(throttle=0.5, seed=3))
    ended = [faulty.send([data(b"%d" % number, 1)]).exception(10) for number in range(50)]
    failures = [error for error in ended if error is not None]
    assert 10 < len(failures) < 40
    assert all(isinstance(error, ChannelError) and error.retryable for error in failures)
    slow = Faulty(receiver, Faults(slow_read_s=0.05))
    begun = time.monotonic()
    assert len(slow.receive([Expected(Kind.DATA, 0, 0, 0)], 1)) == 50 - len(failures)
    assert time.monotonic() - begun >= 0.05
