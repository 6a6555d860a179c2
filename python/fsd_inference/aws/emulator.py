"""Starting and stopping the AWS emulator: one ministack process that listens on 127.0.0.1."""

from __future__ import annotations

import http.client
import importlib.util
import os
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

from fsd_inference import interpreter
from fsd_inference.aws.sessions import EMULATOR_REGION
from fsd_inference.errors import StackError
from fsd_inference.stack_description import EmulatorInfo
from fsd_inference.threads import why_not_started

_PORT_TRIES = 3  # another process may take a free port before the emulator binds it
_STOP_S = 10.0
_PROC = Path("/proc")
_USUAL_S = 5.0  # starting usually takes one to three seconds

_started: dict[int, subprocess.Popen[bytes]] = {}
"""Emulators that this process started and must reap, by process id."""


def start_emulator(
    *,
    timeout_s: float = 60.0,
    tied: bool = False,
    strict: bool = False,
    on_wait: Callable[[str], None] = lambda _: None,
) -> EmulatorInfo:
    """Start an emulator on a free port and wait until it answers health checks.

    Parameters
    ----------
    timeout_s : float, optional
        Longest wait for the emulator, in seconds.
    tied : bool, optional
        Whether the emulator ends when this process does, even if this process is killed.
    strict : bool, optional
        Whether the emulator enforces IAM policies (access key ``test`` with secret ``test`` is the account's root) and
        accepts TLS only, with the certificate at `certificate_path`, which its functions trust.
    on_wait : callable, optional
        Called once with a progress message if the start takes longer than usual.

    Raises
    ------
    StackError
        ministack is not installed, or did not start; the message ends with the last lines of its log.
    """
    if importlib.util.find_spec("ministack") is None:
        raise StackError(
            "the emulated AWS needs ministack: pip install 'fsd-inference[local]', or give an endpoint URL"
        )
    deadline = time.monotonic() + timeout_s
    slow, has_waited = time.monotonic() + _USUAL_S, False
    for _ in range(_PORT_TRIES):
        info = _launch(_free_port(), tied=tied, strict=strict)
        process = _started[info.pid]
        while process.poll() is None:
            if _is_healthy(info):
                return info
            if time.monotonic() > deadline:
                break
            if not has_waited and time.monotonic() > slow:
                has_waited = True
                on_wait(f"the emulated AWS (ministack) has not started yet; waiting up to {timeout_s:g} s")
            time.sleep(0.05)
        code = process.poll()
        log = _last_lines(Path(info.directory, "log"))
        stop_emulator(info)
        if "already in use" not in log or time.monotonic() > deadline:
            break
    how = f"did not start within {timeout_s:g} s" if code is None else f"ended at once (exit code {code})"
    raise StackError(f"the emulated AWS (ministack) {how}: {log or 'it printed nothing'}")


def stop_emulator(info: EmulatorInfo) -> bool:
    """Stop the emulator and remove its directory; return whether it was still running.

    Both are left alone unless they are certainly what `start_emulator` made: `info` may come from a file that another
    process wrote, and the operating system may have given the process's id to another one. The process belongs to this
    user, works in the directory, and has the token as an argument of its own; the directory belongs to this user and
    holds the token in a file.
    """
    was_running = _is_ours(info)
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _STOP_S
        if _is_ours(info):
            with suppress(ProcessLookupError):
                os.killpg(info.pid, number)  # the emulator leads a process group, which its Lambda workers share
        while _is_ours(info) and time.monotonic() < deadline:
            time.sleep(0.02)
    process = _started.pop(info.pid, None)
    if process is not None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        if process.stdin is not None:
            process.stdin.close()
    if _is_our_directory(info):
        shutil.rmtree(info.directory, ignore_errors=True)
    return was_running


@contextmanager
def running_emulator() -> Iterator[EmulatorInfo]:
    """Run an emulator for the duration of a `with` block, and at most for the lifetime of this process."""
    info = start_emulator(tied=True)
    try:
        yield info
    finally:
        stop_emulator(info)


def certificate_path(info: EmulatorInfo) -> Path:
    """Return the path of a strict emulator's self-signed certificate (PEM)."""
    return _certificate_path(info.directory)


_DIRECTORY_PREFIX = "fsd-emulator-"
_TOKEN_FILE = "token"  # noqa: S105 -- recognises a process, and is no secret
_TOKEN_OPTION = "fsd_emulator="  # noqa: S105
_TIED, _UNTIED = "fsd_inference.aws.tied_emulator", "ministack"
_HANDED_DOWN = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ")
"""Environment variables passed on to the emulator; others, such as SERVICES, USE_SSL or AWS_..., would configure it."""


def _launch(port: int, *, tied: bool, strict: bool) -> EmulatorInfo:
    directory = tempfile.mkdtemp(prefix=_DIRECTORY_PREFIX)
    token = uuid4().hex
    Path(directory, _TOKEN_FILE).write_text(token)
    environment = {name: os.environ[name] for name in _HANDED_DOWN if name in os.environ} | {
        "HOME": directory,
        "AWS_DEFAULT_REGION": EMULATOR_REGION,
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "MINISTACK_HOST": "127.0.0.1",  # the host in queue URLs
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "PERSIST_STATE": "0",
        "S3_PERSIST": "0",
        "LOG_LEVEL": "WARNING",
        "TMPDIR": directory,
    }
    if strict:
        environment |= {
            "AUTH": "true",
            "USE_SSL": "1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_CA_BUNDLE": str(_certificate_path(directory)),  # functions inherit it
        }
    try:
        with Path(directory, "log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 -- our own interpreter
                # Python ignores unknown -X options; this one carries the token that identifies the process.
                interpreter.command(_TIED if tied else _UNTIED, options=("-X", f"{_TOKEN_OPTION}{token}")),
                env=environment,
                cwd=directory,
                stdin=subprocess.PIPE if tied else subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        shutil.rmtree(directory, ignore_errors=True)
        raise StackError(f"the emulated AWS (ministack) could not be started: {why_not_started(error)}") from error
    _started[process.pid] = process
    scheme = "https" if strict else "http"
    return EmulatorInfo(f"{scheme}://127.0.0.1:{port}", process.pid, token, directory)


def _certificate_path(directory: str) -> Path:
    return Path(directory, "ministack-tls", "server.crt")  # ministack's own choice below TMPDIR


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_healthy(info: EmulatorInfo) -> bool:
    where = urlsplit(info.endpoint_url)
    connection: http.client.HTTPConnection | None = None
    try:
        if where.scheme == "https":
            trusted = ssl.create_default_context(cafile=certificate_path(info))
            connection = http.client.HTTPSConnection(where.netloc, timeout=2, context=trusted)
        else:
            connection = http.client.HTTPConnection(where.netloc, timeout=2)
        connection.request("GET", "/_ministack/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):  # not listening yet, or the certificate does not exist yet
        return False
    finally:
        if connection is not None:
            connection.close()


def _is_ours(info: EmulatorInfo) -> bool:
    process = _started.get(info.pid)
    if process is not None:  # not reaped yet, so its id cannot have been reused
        return process.poll() is None
    option = f"{_TOKEN_OPTION}{info.token}".encode()
    if not (_PROC / "self" / "cmdline").exists():
        return option in _listed_arguments(info.pid)
    process_files = _PROC / str(info.pid)
    try:
        return (
            option in (process_files / "cmdline").read_bytes().split(b"\0")
            and process_files.stat().st_uid == os.geteuid()
            and (process_files / "cwd").samefile(info.directory)
        )
    except OSError:  # it has ended, or belongs to another user
        return False


def _listed_arguments(pid: int) -> list[bytes]:
    """Return the arguments of a process of this user as ps lists them; empty if there is none."""
    ps = ["ps", "-ww", "-o", "command=", "-U", str(os.geteuid()), "-p", str(pid)]
    try:
        return subprocess.run(ps, capture_output=True, check=False, timeout=_STOP_S).stdout.split()  # noqa: S603 -- numbers
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StackError(
            f"without /proc and ps it cannot be determined whether process {pid} is the emulator: end it yourself"
        ) from error


def _is_our_directory(info: EmulatorInfo) -> bool:
    """Return whether the directory is this user's, not a link to it, and was made for an emulator with this token."""
    directory = Path(info.directory)
    try:
        return (
            directory.name.startswith(_DIRECTORY_PREFIX)
            and stat.S_ISDIR(directory.lstat().st_mode)
            and directory.lstat().st_uid == os.geteuid()
            and (directory / _TOKEN_FILE).read_text() == info.token
        )
    except (OSError, ValueError):
        return False


def _last_lines(log: Path) -> str:
    with suppress(OSError):
        return " / ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
    return ""
