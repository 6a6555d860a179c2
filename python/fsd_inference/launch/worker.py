"""The process of one rank of a local run: ``python -m fsd_inference.launch.worker DIRECTORY RANK [STARTER]``.

It opens the backends, runs the rank and exits with 0, with `EXIT_REPORTED` after an error that was reported to the
other ranks, or with 1 after any other error. It also ends when its standard input closes, that is when its parent ends.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from fsd_inference import logs
from fsd_inference.engine.driver import Driver
from fsd_inference.engine.loading import LoadedRank, start_shard
from fsd_inference.engine.rank import run_rank
from fsd_inference.errors import AbortedError, FsdError, reason
from fsd_inference.launch.backends import open_backends
from fsd_inference.launch.processes import EXIT_REPORTED, ProcessLauncher
from fsd_inference.launch.spec import LaunchSpec
from fsd_inference.threads import start

_GRACE_S = 10.0
"""Seconds that finished children have to write their reports and exit."""


def main(arguments: list[str]) -> int:
    """Run the rank that the command-line arguments name, and return the exit code."""
    started = time.time()
    directory, rank = Path(arguments[0]), int(arguments[1])
    starter = int(arguments[2]) if len(arguments) > 2 else None
    try:
        logs.start()
        launch = LaunchSpec.read(directory)
        spec = launch.spec
        backends = open_backends(launch, directory, rank)
    except (FsdError, OSError) as error:
        print(reason(error) if isinstance(error, OSError) else error, file=sys.stderr)  # noqa: T201 - the log of the rank
        return 1
    launcher = ProcessLauncher(directory, rank)
    ended = None
    try:
        ended = run_rank(
            spec=spec,
            rank=rank,
            starter=starter,
            started=started,
            load=lambda stopped: LoadedRank(
                start_shard(backends.plans, spec, rank, stopped), backends.runs, spec, str(directory)
            ),
            backends=backends,
            launcher=launcher,
            attached=_end_with_starter,
            on_layer=(lambda layers: print(layers, flush=True)) if rank == 0 else (lambda _: None),  # noqa: T201
        )
    except FsdError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the log of the rank
        return 1
    finally:
        if ended is None or ended.error is not None:
            launcher.hang_up()
        launcher.close(_GRACE_S)
        backends.close()
    if ended is not None and ended.error is not None:
        print(ended.error, file=sys.stderr)  # noqa: T201 - the log of the rank
        return EXIT_REPORTED
    return 0


def _end_with_starter(driver: Driver) -> None:
    """Make the run fail when standard input closes, and exit the process soon after even if the run hangs."""

    def watch() -> None:
        os.read(sys.stdin.fileno(), 1)
        driver.fail(AbortedError(f"the process that started rank {driver.rank} is gone", operation="run"))
        time.sleep(2 * _GRACE_S)
        os._exit(1)

    start(threading.Thread(target=watch, name="starter", daemon=True))


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # everything is closed, and a regular interpreter shutdown would keep parents waiting for 0.1 s
