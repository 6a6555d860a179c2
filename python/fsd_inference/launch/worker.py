"""The process of one rank of a local run.

It opens the backends, runs the rank and exits with 0, with `EXIT_REPORTED` after an error that was reported to the
other ranks, or with 1 after any other error. It also ends when its standard input closes, that is when its parent ends.

The fork server runs `main` in a fork of itself, or runs this module as a program:
``python -m fsd_inference.launch.worker DIRECTORY RANK DESCRIPTOR [STARTER]``.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Never

from fsd_inference import logs
from fsd_inference.engine.driver import Driver
from fsd_inference.engine.free_memory import rank_limit
from fsd_inference.engine.loading import LoadedRank, start_shard
from fsd_inference.engine.rank import run_rank
from fsd_inference.errors import AbortedError, FsdError, reason
from fsd_inference.launch.backends import open_backends
from fsd_inference.launch.processes import EXIT_REPORTED, ProcessLauncher
from fsd_inference.launch.requests import RANK_ALIVE, RANK_FAILED, RANK_PACE, Requests
from fsd_inference.launch.spec import LaunchSpec
from fsd_inference.stragglers import PACE_S, Pace
from fsd_inference.threads import start

_NAME = Path("/proc/self/comm")
_GRACE_S = 10.0
"""Seconds that finished children have to write their reports and exit."""


def main(arguments: list[str]) -> int:
    """Run a rank and return the exit code.

    Parameters
    ----------
    arguments : list of str
        The run directory, the rank, the descriptor of the socket for requests to the fork server, and for all but
        rank 0 the rank that started this one.
    """
    started = time.time()
    directory, rank = Path(arguments[0]), int(arguments[1])
    starter = int(arguments[3]) if len(arguments) > 3 else None
    requests = Requests(socket.socket(fileno=int(arguments[2])))
    with suppress(OSError):  # where there is no /proc, listings of processes show the interpreter alone
        _NAME.write_text(f"fsd-rank-{rank}")
    try:
        logs.start()
        launch = LaunchSpec.read(directory)
        spec = launch.spec
        if spec.settings.workers == 1:
            _tell_of_life(requests, rank)
        backends = open_backends(launch, directory, rank)
    except (FsdError, OSError) as error:
        print(reason(error) if isinstance(error, OSError) else error, file=sys.stderr)  # noqa: T201 - the log of the rank
        return 1
    launcher = ProcessLauncher(directory, rank, requests)
    ended = None
    try:
        ended = run_rank(
            spec=spec,
            rank=rank,
            starter=starter,
            started=started,
            load=lambda stopped: LoadedRank(
                start_shard(backends.plans, spec, rank, stopped),
                backends.runs,
                spec,
                str(directory),
                rank_limit(spec.settings.workers),
            ),
            backends=backends,
            launcher=launcher,
            attached=_end_with_starter,
            on_layer=_told(requests, rank),
        )
    except FsdError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the log of the rank
        return 1
    finally:
        if ended is None or ended.error is not None:
            requests.tell_session(f"{RANK_FAILED} {rank}")  # before the wait for children, which may be stopped
            launcher.hang_up()
        launcher.close(_GRACE_S)
        backends.close()
    if ended is not None and ended.error is not None:
        print(ended.error, file=sys.stderr)  # noqa: T201 - the log of the rank
        return EXIT_REPORTED
    return 0


def _told(requests: Requests, rank: int) -> Callable[[Pace], None]:
    """Return an `on_layer` callback that tells the session the layers of rank 0, and now and then a rank's pace."""
    due = time.monotonic()

    def on_layer(pace: Pace) -> None:
        nonlocal due
        if rank == 0:
            print(pace.layers, flush=True)  # noqa: T201 - to the session
        if time.monotonic() >= due:
            due = time.monotonic() + PACE_S
            requests.tell_session(f"{RANK_PACE} {rank} {pace.layers} {pace.of} {pace.busy_s:.6f}")

    return on_layer


def _tell_of_life(requests: Requests, rank: int) -> None:
    """Tell the session every second that this process is not stopped: with a single rank, no other one notices it."""

    def tell() -> None:
        while True:
            requests.tell_session(f"{RANK_ALIVE} {rank}")
            time.sleep(PACE_S)

    start(threading.Thread(target=tell, name="alive", daemon=True))


def _end_with_starter(driver: Driver) -> None:
    """Make the run fail when standard input closes, and exit the process soon after even if the run hangs."""

    def watch() -> None:
        os.read(sys.stdin.fileno(), 1)
        driver.fail(AbortedError(f"the process that started rank {driver.rank} is gone", operation="run"))
        time.sleep(2 * _GRACE_S)
        os._exit(1)

    start(threading.Thread(target=watch, name="starter", daemon=True))


def end(code: int) -> Never:
    """End this process at once: a regular shutdown of the interpreter would keep parents waiting for 0.1 s."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    end(main(sys.argv[1:]))
