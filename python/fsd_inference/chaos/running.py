"""A client in a process of its own, and what it says while it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from fsd_inference import interpreter
from fsd_inference.chaos import client
from fsd_inference.chaos.processes import ranks_of, runs, with_variable

_VARIABLE = "FSD_CHAOS"
"""Environment variable by whose value the processes of a client are found, also after it has ended."""
_POLL_S = 0.005


class Client:
    """A running client; use it as a context manager, at whose end none of its processes is left.

    Parameters
    ----------
    request : client.Request
        What it is to run.
    folder : Path
        Its directory for temporary files; its standard error goes to ``stderr`` beside it.

    Attributes
    ----------
    layers : float
        Layers that rank 0 has completed in the run that is going on.
    answers : list of dict
        What has become of each run: a digest or an error.
    """

    def __init__(self, request: client.Request, folder: Path) -> None:
        self._token = uuid.uuid4().hex
        self._errors = folder.with_name(f"{folder.name}.stderr")
        folder.mkdir(exist_ok=True)
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, our module
                interpreter.command(client.__name__, request.to_argument()),
                env=interpreter.environment() | {"TMPDIR": str(folder), _VARIABLE: self._token},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        self.layers = 0.0
        self.answers: list[dict[str, Any]] = []
        self._is_ready = threading.Event()
        self._reader = threading.Thread(target=self._read, name="chaos-client", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def errors(self) -> str:
        """What it has written to its standard error."""
        return self._errors.read_text(errors="replace")

    def prepared(self, timeout_s: float) -> bool:
        """Wait until the network is prepared, and return whether it is."""
        self._wait(lambda: self._is_ready.is_set() or bool(self.answers), timeout_s)
        return self._is_ready.is_set()

    def go(self) -> None:
        """Let it run."""
        self._write(b"\n")

    def stop(self) -> None:
        """Let it make no more runs."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        with suppress(OSError):
            self._process.stdin.close()

    def rank(self, rank: int, timeout_s: float) -> int | None:
        """Wait for the process of a rank, and return its id; None if the client ends without it."""
        found: dict[int, int] = {}

        def is_there() -> bool:
            found.update(ranks_of(self.pid))
            return rank in found or bool(self.answers)

        self._wait(is_there, timeout_s)
        return found.get(rank)

    def reaches(self, layer: int, timeout_s: float) -> bool:
        """Wait until rank 0 has completed some layers, and return whether it did before the run ended."""
        self._wait(lambda: self.layers >= layer or bool(self.answers), timeout_s)
        return self.layers >= layer and not self.answers

    def ends(self, timeout_s: float) -> int | None:
        """Wait for its end, and return its exit code, negative for a signal; None if it still runs."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join()
        return code

    def processes(self) -> set[int]:
        """Return its processes that run: itself, the fork server and the ranks."""
        return with_variable(_VARIABLE, self._token)

    def _wait(self, happened: Callable[[], bool], timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        while not happened() and time.monotonic() < until and runs(self.pid):
            time.sleep(_POLL_S)

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        with suppress(BrokenPipeError):  # it has ended
            self._process.stdin.write(data)
            self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        for line in self._process.stdout:
            value = json.loads(line)
            if "layers" in value:
                self.layers = value["layers"]
            elif "ready" in value:
                self._is_ready.set()
            else:
                self.layers = 0.0
                self.answers.append(value)
