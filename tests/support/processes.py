"""Inspection of the processes and temporary files of runs, through /proc and the file system."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path


def ranks_of(session_pid: int) -> dict[int, int]:
    """Return the process id of each rank among the descendants of a process, by rank."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name = (process / "comm").read_text().strip()
            if name.startswith("fsd-rank-") and session_pid in ancestors(int(process.name)):
                found[int(name.removeprefix("fsd-rank-"))] = int(process.name)
        except OSError:  # the process has ended
            continue
    return found


def ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        yield pid


def state_of(pid: int) -> str:
    """Return the state letter of a process, such as R, T (stopped) or Z (zombie); empty if it does not exist."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


def runs(pid: int) -> bool:
    """Return whether a process is running; a zombie, which init may reap late, is not."""
    return state_of(pid) not in {"", "Z"}


def wait_until(happened: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    until = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < until, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.02)


def temporary_folders() -> set[Path]:
    """Return the temporary folders of sessions, runs and emulators."""
    return set(Path(tempfile.gettempdir()).glob("fsd-*"))


def environment_of(pid: int) -> dict[str, str]:
    """Return the environment variables with which a process was started."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def processes_of(function: str) -> set[int]:
    """Return the ids of the emulator's processes for a Lambda function, given the end of its name."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            name = environment_of(int(process.name)).get("AWS_LAMBDA_FUNCTION_NAME", "")
            if name.endswith(function) and runs(int(process.name)):
                found.add(int(process.name))
    return found
