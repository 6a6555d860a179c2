"""The processes and files that a run has, seen from outside."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path


def ranks_of(session_pid: int) -> dict[int, int]:
    """Return the process of each rank that a process has started, directly or not."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            if b"fsd_inference.launch.worker" in arguments and session_pid in ancestors(int(process.name)):
                # module, folders of modules, run directory, rank
                found[int(arguments[arguments.index(b"fsd_inference.launch.worker") + 3])] = int(process.name)
        except OSError:  # it has ended meanwhile
            continue
    return found


def ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        yield pid


def state_of(pid: int) -> str:
    """Return the letter of a process's state, such as R, T (stopped) or Z (ended, not buried); none if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


def runs(pid: int) -> bool:
    """Whether a process is there and has not ended; init may be slow to bury it."""
    return state_of(pid) not in {"", "Z"}


def wait_until(happened: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    until = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < until, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.02)


def temporary_folders() -> set[Path]:
    """What sessions, runs and emulators have put into the folder of temporary files."""
    return set(Path(tempfile.gettempdir()).glob("fsd-*"))


def environment_of(pid: int) -> dict[str, str]:
    """Return the variables that a process was started with."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def processes_of(function: str) -> set[int]:
    """Return the processes that the emulator keeps for a function whose name ends so."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            name = environment_of(int(process.name)).get("AWS_LAMBDA_FUNCTION_NAME", "")
            if name.endswith(function) and runs(int(process.name)):
                found.add(int(process.name))
    return found
