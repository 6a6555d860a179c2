"""The heartbeat of a coordinator: when it is written, and when a client takes its silence for death."""

from __future__ import annotations

import itertools
import threading

import pytest

from fsd_inference.aws import heartbeat
from fsd_inference.aws.heartbeat import Heartbeat, Pulse
from fsd_inference.errors import StoreError
from fsd_inference.limits import HEARTBEAT_S, SILENCE_S
from fsd_inference.store.memory import MemoryStore
from tests.support.processes import wait_until

KEY = "runs/r/0/heartbeat"


class Beaten(MemoryStore):
    """A store that notes what was written, and refuses the first two writes."""

    def __init__(self) -> None:
        super().__init__()
        self.beats: list[bytes] = []

    def put(self, key: str, data: bytes) -> str:
        assert key == KEY
        self.beats.append(data)
        if len(self.beats) < 3:
            raise StoreError("out of reach")
        return super().put(key, data)


def test_it_goes_on_after_failures_and_ends_with_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 0.01)
    store = Beaten()
    with Heartbeat(store, KEY):
        wait_until(lambda: len(store.beats) > 5, "beats")
    count = len(store.beats)
    assert store.beats == [str(number + 1).encode() for number in range(count)]
    assert not any(thread.name == "heartbeat" for thread in threading.enumerate())


def test_a_short_run_writes_none() -> None:
    store = Beaten()
    with Heartbeat(store, KEY):
        pass
    assert store.beats == []


def lost_at(beats: list[float], until: float) -> float | None:
    """Return when a client that looks every 0.7 s gives up a coordinator that beats at some times after its start."""
    store, due = MemoryStore(), list(beats)
    pulse, now = Pulse(store, KEY, 0.0), 0.0
    while now < until:
        now += 0.7
        while due and due[0] <= now:
            store.put(KEY, str(due.pop(0)).encode())
        if pulse.is_lost(now):
            return now
    return None


@pytest.mark.parametrize("late_s", [0.0, 2.0, SILENCE_S - 2 * HEARTBEAT_S])
def test_a_coordinator_that_beats_is_not_lost(late_s: float) -> None:
    every_s = HEARTBEAT_S + late_s
    assert lost_at([every_s * number for number in range(1, 100)], 95 * every_s) is None


@pytest.mark.parametrize("last", [0, 1, 2, 7])
def test_one_that_beats_no_more_is_lost_within_its_silence_and_two_looks(last: int) -> None:
    beats = [HEARTBEAT_S * number for number in range(1, last + 1)]
    at = lost_at(beats, 1000)
    assert at is not None
    assert SILENCE_S <= at - HEARTBEAT_S * last <= SILENCE_S + 2 * (HEARTBEAT_S + 0.7)


def test_looks_are_few() -> None:
    looks = itertools.count()

    class Looked(MemoryStore):
        def stat(self, key: str) -> None:
            assert key == KEY
            next(looks)

    pulse = Pulse(Looked(), KEY, 0.0)
    assert not any(pulse.is_lost(second / 10) for second in range(149))
    assert next(looks) == 2
