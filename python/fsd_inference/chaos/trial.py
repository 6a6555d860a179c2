"""Carrying out one schedule: a run, its faults, its outcome, and what is left after it and after the next run."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from fsd_inference import interpreter
from fsd_inference.chaos.client import CLOCKS, Request
from fsd_inference.chaos.processes import cut_connections, fork_server_of, refuse_disk, refuse_memory, runs
from fsd_inference.chaos.request_faults import RequestFaults
from fsd_inference.chaos.running import Client
from fsd_inference.chaos.schedule import Fault, Schedule
from fsd_inference.chaos.site import Left, Site
from fsd_inference.limits import LANE_WAIT_S

Verdict = Literal["right", "error", "unnamed", "ended", "WRONG", "HANG", "CRASH", "LEFTOVER"]
"""What becomes of a schedule: the right answer; an error that names the operation, or not; a client that was ended by
the schedule. Capitals are failures: another answer; no end in time; no word on how a run ended; something that the next
run and ``fsd runs clean`` do not remove, or a next run that is not right."""
FAILURES: tuple[Verdict, ...] = ("WRONG", "HANG", "CRASH", "LEFTOVER")

_PREPARE_S = 60.0
_ATTEMPT_S = CLOCKS.run_s + 15.0
"""Longest attempt in seconds: local processes have 15 s to stop after the run clock."""
_COORDINATOR_S = CLOCKS.start_s + 60.0
"""Seconds that a client waits for a coordinator that never begins."""
_AFTER_S = 25.0
"""Seconds for what comes around the attempts: waits for a lane, cleaning up."""
_NEXT_S = LANE_WAIT_S + 20.0
"""The same for the next run, which may wait for a lane that a client has left."""
_NEXT_SLACK = 2.5
"""Factor of the next run's clocks: its functions may all be cold, on a machine that others use."""
_GONE_S = 30.0
"""Seconds for processes to end after their client."""
_POLL_S = 0.01
_ENDING = {"kill client", "signal client"}


@dataclass(slots=True)
class Outcome:
    """What became of a schedule.

    Attributes
    ----------
    schedule : Schedule
    verdict : str
        One of `Verdict`.
    seconds : float
        Duration of the run, from the request to the end of its process.
    said : str
        The error, or what is wrong.
    error : dict or None
        Record of the error, with type, rank and operation.
    is_fired : bool
        Whether all faults of the schedule happened before the run ended.
    left : tuple of str
        What was left when the run had ended.
    resumed_at : int
        The layer at which the attempt with the answer began, from a checkpoint; 0 for the first.
    fault_s : float or None
        Seconds from the first fault of a process to the end of the run.
    """

    schedule: Schedule
    verdict: Verdict
    seconds: float = 0.0
    said: str = ""
    error: dict[str, Any] | None = None
    is_fired: bool = True
    left: tuple[str, ...] = ()
    resumed_at: int = 0
    fault_s: float | None = None

    @property
    def is_failure(self) -> bool:
        """Whether this should never happen."""
        return self.verdict in FAILURES

    def __str__(self) -> str:
        """Return one line: what happened, and after how long."""
        words = [f"{self.verdict} after {self.seconds:.1f} s"]
        if self.resumed_at:
            words.append(f"(from layer {self.resumed_at} on)")
        if not self.is_fired:
            words.append("(ended before a fault)")
        if self.said:
            words.append(f"- {self.said}")
        if self.left:
            words.append(f"[for the next run: {len(self.left)}, first {self.left[0]}]")
        return " ".join(words)

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as plain JSON values."""
        return {
            "schedule": self.schedule.to_json(),
            "verdict": self.verdict,
            "seconds": self.seconds,
            "said": self.said,
            "error": self.error,
            "fired": self.is_fired,
            "left": list(self.left),
            "resumed_at": self.resumed_at,
        }


@dataclass(slots=True)
class Trials:
    """Carries out schedules, one after the other.

    Attributes
    ----------
    folder : Path
        Directory for temporary files.
    right : str
        Digest of the right answer.
    open_site : callable
        Returns the emulated stack, with functions or not, which the first schedule that needs it starts.
    """

    folder: Path
    right: str
    open_site: Callable[[bool], Site]
    _number: int = field(default=0)

    def run(self, schedule: Schedule) -> Outcome:
        """Carry out a schedule, and then the next run on the same stack if anything went wrong or was left."""
        site = None if schedule.channel == "local" else self.open_site(schedule.on_functions)
        if site is not None:
            site.push(schedule.workers)
        self._number += 1
        temporary = self.folder / f"tmp-{self._number}"
        request = Request.of(schedule, None if site is None else str(site.disturbed))
        with Client(request, temporary) as running:
            outcome = self._disturbed(schedule, running, site)
            processes = _remaining(running)
        if processes and outcome.verdict != "HANG":
            outcome.verdict, outcome.said = (
                "LEFTOVER",
                f"{len(processes)} processes outlive their client by {_GONE_S:g} s",
            )
        found = _left(temporary, site)
        outcome.left = found.what
        if not outcome.is_failure and (outcome.verdict != "right" or found.what):
            self._next_run(outcome, request, temporary, site, found)
        if outcome.is_failure and site is not None:
            site.restart()  # what this one has left is not to be counted again
        return outcome

    def _disturbed(self, schedule: Schedule, running: Client, site: Site | None) -> Outcome:
        if not running.prepared(_PREPARE_S):
            return Outcome(schedule, "CRASH", said=f"the network was not prepared: {running.errors[-300:]}")
        hook = RequestFaults(schedule.faults)
        faults = [_Acting(fault, running, site, hook) for fault in schedule.faults if fault.kind in ACTIONS]
        if site is not None:
            site.proxy.reset_counts()
            site.proxy.hook = hook
        began = time.monotonic()
        for each in faults:
            each.start()
        for each in faults:
            each.wait_if_first()
        running.go()
        code = running.ends(_longest_s(schedule))
        ended = time.monotonic()
        for each in faults:
            each.undo()
        if site is not None:
            site.proxy.hook = None
        outcome = self._judged(schedule, running, code)
        outcome.seconds = ended - began
        outcome.is_fired = len(hook.fired) + sum(each.at is not None for each in faults) == len(schedule.faults)
        outcome.fault_s = min((ended - each.at for each in faults if each.at is not None), default=None)
        return outcome

    def _judged(self, schedule: Schedule, running: Client, code: int | None) -> Outcome:
        if code is None:
            return Outcome(schedule, "HANG", said="the client had not ended")
        if not running.answers:
            if any(fault.kind in _ENDING for fault in schedule.faults):
                return Outcome(schedule, "ended", said=f"exit code {code}")
            return Outcome(schedule, "CRASH", said=f"exit code {code}: {running.errors[-300:]}")
        error = running.answers[-1].get("error")
        if error is None:
            answer = running.answers[-1]
            is_right = answer["digest"] == self.right
            return Outcome(schedule, "right" if is_right else "WRONG", resumed_at=answer["resumed_at"])
        where = f"{error['type']}, rank {error['rank']}, {error['operation']}: {error['message']}"
        return Outcome(schedule, "unnamed" if error["operation"] is None else "error", said=where, error=error)

    def _next_run(self, outcome: Outcome, request: Request, temporary: Path, site: Site | None, found: Left) -> None:
        """Remove what `fsd runs clean` finds, make the same run undisturbed, and look again.

        Messages that were under way when the lane was purged do no harm if the next run, in the same lane, is right.
        """
        if site is not None and found.runs:
            command = interpreter.command(
                "fsd_inference", "runs", "clean", *sorted(found.runs), "--stack", str(site.direct), "--json"
            )
            subprocess.run(command, env=interpreter.environment(), capture_output=True, check=False)  # noqa: S603 - us
        stack = None if site is None else str(site.direct)
        undisturbed = replace(request, attempts=1, stack=stack, slack=_NEXT_SLACK)
        problem = self._undisturbed(undisturbed, temporary)
        if problem is not None:
            outcome.verdict, outcome.said = "LEFTOVER", f"the next run fails: {problem} (this one: {outcome.said})"
            return
        left = _left(temporary, site).what
        if left:
            outcome.verdict, outcome.said = "LEFTOVER", f"{'; '.join(left[:3])} (this one: {outcome.said})"

    def _undisturbed(self, request: Request, temporary: Path) -> str | None:
        """Make a run without faults, and return what is wrong with it; None if it is right."""
        with Client(request, temporary) as running:
            running.prepared(_PREPARE_S)
            running.go()
            code = running.ends(_NEXT_SLACK * _ATTEMPT_S + _NEXT_S)
            if not running.answers:
                return "it hangs" if code is None else running.errors[-300:]
            answer = running.answers[-1]
        if "error" in answer:
            return str(answer["error"]["message"])
        return None if answer["digest"] == self.right else "another answer"


class _Acting(threading.Thread):
    """A fault of a process: waits for its time, acts once, and is undone when the run has ended."""

    def __init__(self, fault: Fault, running: Client, site: Site | None, hook: RequestFaults) -> None:
        super().__init__(name=f"chaos {fault.kind}", daemon=True)
        self._fault, self._running, self._site, self._hook = fault, running, site, hook
        self._over = threading.Event()
        self._acts = threading.Event()
        self.at: float | None = None

    def run(self) -> None:
        pid = self._victim()
        if pid is None or self._over.is_set():
            return
        self.at = time.monotonic()
        try:
            ACTIONS[self._fault.kind](self, pid)
        except (ProcessLookupError, FileNotFoundError):  # it has ended meanwhile
            self.at = None
        finally:
            self._acts.set()

    def _victim(self) -> int | None:
        """Wait until the fault is due, and return the process to which it happens; None if the run ends before."""
        fault, running = self._fault, self._running
        if fault.request:
            assert self._site is not None  # noqa: S101 - schedules over services have a site
            reached = self._hook.reached(fault)
            while not reached.wait(_POLL_S):
                if self._over.is_set():
                    return None
            return self._site.function(fault.kind.removeprefix("kill "), fault.rank or 0)
        if fault.at > 0 and not running.reaches(fault.at, _ATTEMPT_S):
            return None
        if fault.rank is not None:
            return running.rank(fault.rank, _ATTEMPT_S)
        return fork_server_of(running.pid) if fault.kind == "kill fork server" else running.pid

    def wait_if_first(self) -> None:
        """Wait until this has happened, if it is to happen before the run begins."""
        if self._fault.at == 0 and self._fault.rank is None and not self._fault.request:
            self._acts.wait(_PREPARE_S)

    def undo(self) -> None:
        """Act no more, and let the emulator go on."""
        self._over.set()
        self.join()
        if self._site is not None and self.at is not None:
            if self._fault.kind in {"pause emulator", "stop emulator"}:
                self._site.go_on()
            elif self._fault.kind == "restart emulator" and not runs(self._site.emulator_pid):
                self._site.restart()

    def send(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to the victim."""
        os.kill(pid, number)

    def pause(self, pid: int) -> None:
        """Stop the victim for some seconds, or until the run has ended."""
        os.kill(pid, signal.SIGSTOP)
        self._over.wait(self._fault.seconds)
        os.kill(pid, signal.SIGCONT)

    def pause_emulator(self) -> None:
        """Stop the emulator for some seconds; if there are none, until the run has ended."""
        assert self._site is not None  # noqa: S101 - schedules over services have a site
        self._site.pause()
        self._acts.set()
        if self._fault.seconds:
            self._over.wait(self._fault.seconds)
            self._site.go_on()

    def restart_emulator(self) -> None:
        """Kill the emulator, and start another one some seconds later."""
        assert self._site is not None  # noqa: S101 - schedules over services have a site
        self._site.kill()
        self._acts.set()
        if not self._over.wait(self._fault.seconds):
            self._site.restart()

    @property
    def signal(self) -> signal.Signals:
        """The signal that the schedule names."""
        return signal.Signals[self._fault.detail]


ACTIONS: dict[str, Callable[[_Acting, int], object]] = {
    "kill rank": lambda acting, pid: acting.send(pid, signal.SIGKILL),
    "stop rank": lambda acting, pid: acting.send(pid, signal.SIGSTOP),
    "pause rank": lambda acting, pid: acting.pause(pid),
    "rank out of memory": lambda _, pid: refuse_memory(pid),
    "disk full": lambda _, pid: refuse_disk(pid, 0),
    "kill function": lambda acting, pid: acting.send(pid, signal.SIGKILL),
    "kill coordinator": lambda acting, pid: acting.send(pid, signal.SIGKILL),
    "kill fork server": lambda acting, pid: acting.send(pid, signal.SIGKILL),
    "kill client": lambda acting, pid: acting.send(pid, signal.SIGKILL),
    "signal client": lambda acting, pid: acting.send(pid, acting.signal),
    "cut connections": lambda _, pid: cut_connections(pid),
    "pause emulator": lambda acting, _: acting.pause_emulator(),
    "stop emulator": lambda acting, _: acting.pause_emulator(),
    "restart emulator": lambda acting, _: acting.restart_emulator(),
}
"""What a fault of each kind does to a process with some id."""


def _longest_s(schedule: Schedule) -> float:
    """Return the seconds by which the client must have ended."""
    attempt_s = _ATTEMPT_S + (_COORDINATOR_S if schedule.on_functions else 0.0)
    return schedule.attempts * attempt_s + _AFTER_S


def _remaining(running: Client) -> set[int]:
    """Return the client's processes that still run when they should have ended."""
    until = time.monotonic() + _GONE_S
    while (found := running.processes()) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def _left(temporary: Path, site: Site | None) -> Left:
    folders = tuple(f"folder {entry.name}" for entry in sorted(temporary.iterdir()))
    left = Left() if site is None else site.left()
    return replace(left, what=folders + left.what)
