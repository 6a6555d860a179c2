"""A channel wrapper that adds latency, to make an emulated service as slow as the real one."""

from __future__ import annotations

import heapq
import itertools
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future

from fsd_inference.channels.base import Body, Channel, Expected, Frame
from fsd_inference.channels.sending import Joined, check_limits, closed_error
from fsd_inference.channels.wrapper import Wrapper
from fsd_inference.threads import start


class Delayed(Wrapper):
    """A channel that delays each send and each delivery of another channel.

    Parameters
    ----------
    inner : Channel
        The channel to slow down.
    send_s, deliver_s : float
        Latency in seconds of each send before `inner` receives it, and of each body that `inner` has delivered.
    jitter : float
        Each latency is multiplied by a uniform random factor between 1 - jitter and 1 + jitter.
    seed : int
        Seed of the random factors.
    """

    def __init__(
        self, inner: Channel, *, send_s: float = 0.0, deliver_s: float = 0.0, jitter: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__(inner)
        self._send_s = send_s
        self._deliver_s = deliver_s
        self._jitter = jitter
        self._random = random.Random(seed)  # noqa: S311 - draws latencies
        self._order = itertools.count()
        self._changed = threading.Condition()  # guards all fields below
        self._closed = False
        self._held_sends: list[tuple[float, int, Sequence[Frame], Joined]] = []
        self._held_bodies: list[tuple[float, int, Body]] = []
        self._expected: Sequence[Expected] = ()
        self._receivers = 0
        self._error: Exception | None = None
        self._threads = [threading.Thread(target=self._pass_sends_on, name="delayed-sends", daemon=True)]
        if deliver_s > 0:
            self._threads.append(threading.Thread(target=self._take_deliveries, name="delayed-deliveries", daemon=True))
        for thread in self._threads:
            start(thread)

    def send(self, frames: Sequence[Frame]) -> Future[None]:
        check_limits(frames, self.limits)
        joined = Joined(1)
        with self._changed:
            if self._closed:
                raise closed_error()
            heapq.heappush(self._held_sends, (self._due(self._send_s), next(self._order), frames, joined))
            self._changed.notify_all()
        return joined.future

    def receive(self, expected: Sequence[Expected], timeout_s: float) -> Sequence[Body]:
        if self._deliver_s <= 0:
            return self.inner.receive(expected, timeout_s)
        until = time.monotonic() + timeout_s
        with self._changed:
            self._expected = expected
            self._receivers += 1
            self._changed.notify_all()
            try:
                while True:
                    due = self._take_due()
                    if due:
                        return due
                    if self._error is not None:
                        error, self._error = self._error, None
                        raise error
                    if self._closed:
                        raise closed_error()
                    now = time.monotonic()
                    if now >= until:
                        return []
                    self._changed.wait(min([until, *(held[0] for held in self._held_bodies[:1])]) - now)
            finally:
                self._receivers -= 1

    def abort(self, frame: Frame) -> None:
        time.sleep(max(0.0, self._due(self._send_s) - time.monotonic()))
        self.inner.abort(frame)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self.inner.close()

    def _due(self, seconds: float) -> float:
        return time.monotonic() + seconds * self._random.uniform(1 - self._jitter, 1 + self._jitter)

    def _take_due(self) -> list[Body]:
        now, due = time.monotonic(), []
        while self._held_bodies and self._held_bodies[0][0] <= now:
            due.append(heapq.heappop(self._held_bodies)[2])
        return due

    def _take_deliveries(self) -> None:
        """Receive while a caller waits or bodies are held, so that each body's delay starts when it arrives."""
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closed or (self._error is None and (self._receivers or self._held_bodies))
                )
                if self._closed:
                    return
                expected = self._expected
            arrived: Sequence[Body] = []
            error = None
            try:
                arrived = self.inner.receive(expected, _TURN_S)
            except Exception as failed:  # noqa: BLE001 - any error must be raised by the next call of `receive`
                error = failed
            with self._changed:
                self._error = error
                for body in arrived:
                    heapq.heappush(self._held_bodies, (self._due(self._deliver_s), next(self._order), body))
                self._changed.notify_all()

    def _pass_sends_on(self) -> None:
        while (held := self._next_send()) is not None:
            frames, joined = held
            try:
                self.inner.send(frames).add_done_callback(lambda future, joined=joined: joined.end(future.exception()))  # type: ignore[misc]
            except Exception as error:  # noqa: BLE001 - `send` has returned: only the future can report it
                joined.end(error)

    def _next_send(self) -> tuple[Sequence[Frame], Joined] | None:
        """Wait for the next send that is due; once closed, fail the sends still held and return None."""
        with self._changed:
            while not self._closed:
                wait = self._held_sends[0][0] - time.monotonic() if self._held_sends else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._held_sends)[2:]
                self._changed.wait(wait)
            dropped, self._held_sends = self._held_sends, []
        for _, _, _, joined in dropped:
            joined.end(closed_error())
        return None


_TURN_S = 0.005
"""Longest receive of `inner` in seconds: the list of expected frames may be outdated by that time, which delays a
delivery by as much at most. (Over `queue` a poll lasts longer, but returns any message.)"""
