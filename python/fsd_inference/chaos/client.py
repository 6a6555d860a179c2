"""The program whose runs are disturbed: a session in a process of its own, as a user's program would have it.

It is started as ``python -m fsd_inference.chaos.client REQUEST``. On standard output it writes one JSON object a line:
``{"ready": true}`` once the network is prepared, and then waits for a line on its standard input; ``{"layers": n}`` as
rank 0 completes layers; and ``{"digest": ...}`` or ``{"error": ...}`` when a run has ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
from dataclasses import asdict, astuple, dataclass
from functools import cache
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.chaos.schedule import LAYERS, Schedule
from fsd_inference.config import Clocks, FailurePolicy, Tuning
from fsd_inference.errors import FsdError, RunError
from fsd_inference.network import Network, random_network
from fsd_inference.progress import Silent
from fsd_inference.session import Inference, Session
from fsd_inference.session.platforms import ProcessPlatform

CLOCKS = Clocks(start_s=15.0, stall_s=6.0, run_s=25.0)
"""Short clocks: a schedule should not take minutes to find out that a frame is lost."""
WIDTH, SAMPLES = 96, 40
PARTITION = "block"


@dataclass(frozen=True, slots=True)
class Request:
    """What the client is to run.

    Attributes
    ----------
    channel : str
    workers, branching, attempts : int
        As in `Schedule`.
    stack : str or None
        Path of the stack.json for the channels over AWS.
    checkpoint_every : int
        As in `Schedule`.
    delay_s : float
        Latency added to every frame between processes, in seconds.
    runs : int or None
        Number of runs, one after the other; None for as many as there is time for until standard input closes.
    slack : float
        Factor of all clocks.
    """

    channel: str
    workers: int
    branching: int
    attempts: int
    stack: str | None
    checkpoint_every: int = 0
    delay_s: float = 0.03
    runs: int | None = 1
    slack: float = 1.0

    @classmethod
    def of(cls, schedule: Schedule, stack: str | None) -> Request:
        """Return the request for the run of a schedule."""
        every = schedule.checkpoint_every
        return cls(schedule.channel, schedule.workers, schedule.branching, schedule.attempts, stack, every)

    def to_argument(self) -> str:
        """Return the request as the program's argument."""
        return json.dumps(asdict(self))


@cache
def network() -> Network:
    """Return the network that is run."""
    return random_network([WIDTH] * (LAYERS + 1), connections=8, seed=5)


def samples() -> NDArray[np.float32]:
    """Return the samples that are run."""
    return np.random.default_rng(0).random((SAMPLES, WIDTH), np.float32)


def digest(answer: Inference) -> str:
    """Return a digest of the bits of an answer."""
    rows = answer.outputs
    assert rows is not None  # noqa: S101 - sessions of this program return rows
    dense = rows.toarray() if sparse.issparse(rows) else np.asarray(rows)
    return hashlib.sha256(np.ascontiguousarray(dense).tobytes()).hexdigest()


def serial_digest() -> str:
    """Return the digest of the right answer, computed by one process without ranks."""
    with Session(network()) as session:
        return digest(session.infer(samples()))


class _Told(Silent):
    """Writes how many layers rank 0 has completed."""

    def advance(self, task: str, completed: float) -> None:
        if task == "infer":
            _say(layers=completed)


def _say(**value: object) -> None:
    os.write(1, f"{json.dumps(value)}\n".encode())


def _run(request: Request) -> None:
    ProcessPlatform.delay_s = request.delay_s
    clocks = Clocks(*(request.slack * seconds for seconds in astuple(CLOCKS)))
    with Session(
        network(),
        channel=request.channel,
        workers=request.workers,
        stack=request.stack,
        partition=PARTITION,
        tuning=Tuning(branching=request.branching),
        failures=FailurePolicy(attempts=request.attempts, clocks=clocks, checkpoint_every=request.checkpoint_every),
        progress=_Told(),
    ) as session:
        session.prepare()
        _say(ready=True)
        os.read(0, 1)
        over = threading.Event()
        if request.runs is None:
            threading.Thread(target=_wait_for_end, args=[over], daemon=True).start()
        done = 0
        while not over.is_set() and done != request.runs:
            done += 1
            try:
                answer = session.infer(samples())
            except FsdError as error:
                _say(error=_record(error))
            else:
                _say(digest=digest(answer), resumed_at=answer.report.resumed_at)


def _wait_for_end(over: threading.Event) -> None:
    os.read(0, 1)  # nothing, once standard input is closed
    over.set()


def _record(error: FsdError) -> dict[str, Any]:
    if isinstance(error, RunError):
        return error.record()
    return {"type": type(error).__name__, "message": str(error), "rank": None, "operation": None}


def _end(number: int, _: object) -> NoReturn:
    """End as `fsd` does on a signal: clean up once, and take no second signal of a closed terminal."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sys.exit(128 + number)


def main() -> None:
    """Run what the argument says."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    try:
        _run(Request(**json.loads(sys.argv[1])))
    except FsdError as error:  # of the preparation
        _say(error=_record(error))


if __name__ == "__main__":
    main()
