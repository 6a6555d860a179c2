"""Behaviour specific to the local channel (sockets): processes that start late, die or send invalid data."""

from __future__ import annotations

import errno
import random
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fsd_inference.channels import local
from fsd_inference.channels.base import Body, Frame, Kind, Limits
from fsd_inference.channels.local import LocalChannel
from fsd_inference.chaos.processes import state_of
from fsd_inference.errors import ChannelError
from tests.support.processes import wait_until

Open = Callable[..., LocalChannel]


@pytest.fixture
def open_channel(tmp_path: Path) -> Iterator[Open]:
    opened: list[LocalChannel] = []

    def opener(
        rank: int, workers: int = 2, directory: Path = tmp_path, *, frame_bytes: int = 1 << 20, **options: float
    ) -> LocalChannel:
        limits = Limits(frame_bytes, 100, 1 << 30)
        channel = LocalChannel(directory, rank, workers, limits=limits, **options)
        opened.append(channel)
        return channel

    yield opener
    for channel in opened:
        channel.close()


def data(body: bytes, *targets: int) -> Frame:
    return Frame(Kind.DATA, 0, 0, targets, body)


def test_a_rank_that_starts_late_gets_what_was_sent_before(open_channel: Open) -> None:
    early = open_channel(0, workers=3)
    future = early.send([data(b"early", 1), data(b"to 2", 2)])
    other = open_channel(2, workers=3)
    assert other.receive([], 10) == [b"to 2"], "a rank that is not there holds up no other"
    assert not future.done()
    late = open_channel(1, workers=3)
    assert late.receive([], 10) == [b"early"]
    future.result(10)


def test_a_rank_that_never_starts_is_an_error(open_channel: Open) -> None:
    channel = open_channel(0, connect_timeout_s=0.1)
    with pytest.raises(ChannelError, match="rank 1 does not listen") as caught:
        channel.send([data(b"x", 1)]).result(10)
    assert caught.value.retryable
    open_channel(1).send([data(b"y", 0)]).result(10)
    assert channel.receive([], 10) == [b"y"]
    channel.send([data(b"z", 1)]).result(10)


def test_an_abort_reaches_ranks_that_start_after_it(open_channel: Open) -> None:
    open_channel(0).abort(Frame(Kind.ABORT, 0, 0, (0, 1), b"rank 0 failed"))
    assert open_channel(1).receive([], 10) == [b"rank 0 failed"]


def test_paths_longer_than_an_address_work(open_channel: Open, tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    first, second = open_channel(0, directory=directory), open_channel(1, directory=directory)
    first.send([data(b"x", 1)]).result(10)
    assert second.receive([], 10) == [b"x"]
    assert sorted(path.name for path in directory.iterdir()) == ["0.sock", "1.sock"]


def test_a_directory_that_cannot_be_used_is_an_error(open_channel: Open, tmp_path: Path) -> None:
    with pytest.raises(ChannelError, match="cannot open the run directory"):
        open_channel(0, directory=tmp_path / "missing")
    open_channel(0)
    with pytest.raises(ChannelError, match="a run directory of its own"):
        open_channel(0)


@contextmanager
def no_more_open_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_connection_for_which_there_is_no_descriptor_fails_alone(open_channel: Open) -> None:
    one, other = open_channel(0), open_channel(1)
    with no_more_open_files(), pytest.raises(ChannelError, match=r"connect to rank 1: .*may have 0: .*ulimit -n"):
        one.send([data(b"x", 1)]).result(10)
    other.send([data(b"y", 0)]).result(10)
    assert one.receive([], 10) == [b"y"]


def test_a_connection_that_cannot_be_taken_is_told_once(open_channel: Open, tmp_path: Path) -> None:
    channel = open_channel(0)
    with socket.socket(socket.AF_UNIX) as stranger:
        with no_more_open_files():
            stranger.connect(str(tmp_path / "0.sock"))
            with pytest.raises(ChannelError, match=r"accept a connection: .*may have 0: .*ulimit -n"):
                channel.receive([], 10)
        assert channel.receive([], 0.1) == []


def test_an_abort_reaches_those_that_are_connected_whatever_else_fails(open_channel: Open) -> None:
    one, other = open_channel(0), open_channel(1)
    one.send([data(b"x", 1)]).result(10)
    assert other.receive([], 10) == [b"x"]
    with no_more_open_files(), pytest.raises(ChannelError, match="cannot write an abort"):
        one.abort(Frame(Kind.ABORT, 0, 0, (1,), b"rank 0 failed"))
    assert other.receive([], 10) == [b"rank 0 failed"]


def test_a_channel_that_cannot_be_opened_leaves_nothing_open(
    open_channel: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))

    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socketpair", fail)
    with pytest.raises(ChannelError, match=r"rank 0 cannot listen in .*: Too many open files .*ulimit -n"):
        open_channel(0)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_close_leaves_no_socket_behind(open_channel: Open, tmp_path: Path) -> None:
    open_channel(0).close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [0, (1 << 20) + 1, 0xFFFFFFFF])
def test_a_length_beyond_the_limit_is_refused_and_others_go_on(open_channel: Open, tmp_path: Path, length: int) -> None:
    channel = open_channel(0)
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(tmp_path / "0.sock"))
        stranger.sendall(struct.pack("<III", 7, length, 0))
        with pytest.raises(ChannelError, match=f"rank 7 announced a frame of {length} bytes"):
            channel.receive([], 10)
        assert stranger.recv(1) == b"", "the connection is closed"
    open_channel(1).send([data(b"x", 0)]).result(10)
    assert channel.receive([], 10) == [b"x"]


def test_a_connection_that_ends_within_a_frame_is_an_error(open_channel: Open, tmp_path: Path) -> None:
    channel = open_channel(0)
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(tmp_path / "0.sock"))
        stranger.sendall(struct.pack("<II", 1, 3) + b"abc" + struct.pack("<I", 5) + b"ab")
    assert channel.receive([], 10) == [b"abc"]
    with pytest.raises(ChannelError, match="rank 1 ended in the middle of a frame"):
        channel.receive([], 10)


def test_close_ends_sends_that_cannot(open_channel: Open) -> None:
    channel = open_channel(0)
    future = channel.send([data(b"x", 1)])
    channel.close()
    with pytest.raises(ChannelError, match="closed"):
        future.result(10)


RANK_ONE = """
import os, signal, sys
from fsd_inference.channels.base import Frame, Kind
from fsd_inference.channels.local import LocalChannel

channel = LocalChannel(sys.argv[1], 1, 2)
channel.send([Frame(Kind.DATA, 0, 0, (0,), bytes(300_000))]).result(10)
if sys.argv[2] == "stop":
    os.kill(os.getpid(), signal.SIGSTOP)
while channel.receive([], 10) != [b"end"]:
    pass
channel.close()
"""


@pytest.fixture
def start_rank_one(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(then: str) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-c", RANK_ONE, str(tmp_path), then]))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait(30)


def test_another_process(open_channel: Open, start_rank_one: Callable[[str], subprocess.Popen[bytes]]) -> None:
    process = start_rank_one("go on")
    channel = open_channel(0)
    assert channel.receive([], 30) == [bytes(300_000)]
    channel.send([data(b"end", 1)]).result(10)
    assert process.wait(30) == 0


def test_a_process_that_stops_or_dies_holds_up_no_abort(
    open_channel: Open, start_rank_one: Callable[[str], subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start_rank_one("stop")
    channel = open_channel(0)
    assert channel.receive([], 30) == [bytes(300_000)]
    wait_until(lambda: state_of(process.pid) == "T", "rank 1 has stopped itself")  # until then it reads
    waiting = [channel.send([data(bytes(1 << 20), 1)]) for _ in range(8)]  # more than the kernel holds for it
    time.sleep(0.05)
    assert not waiting[-1].done()
    monkeypatch.setattr(local, "_ABORT_S", 0.05)
    with pytest.raises(ChannelError, match="not all ranks have accepted the abort"):
        channel.abort(Frame(Kind.ABORT, 0, 0, (0, 1), b"first"))
    assert channel.receive([], 10) == [b"first"]
    process.kill()
    with pytest.raises(ChannelError, match="rank 1 is gone") as caught:
        waiting[-1].result(10)
    assert caught.value.retryable
    with pytest.raises(ChannelError, match="rank 1 is gone"):
        channel.send([data(b"x", 1)]).result(10)
    channel.abort(Frame(Kind.ABORT, 0, 0, (0, 1), b"abort"))
    assert channel.receive([], 10) == [b"abort"], "an abort passes over the dead"


def test_many_threads_and_long_frames_keep_frames_whole(open_channel: Open) -> None:
    sender, receiver = open_channel(0), open_channel(1)
    bodies = {bytes([i, j]) * 50_000 for i in range(4) for j in range(10)}

    def send(i: int) -> None:
        for j in range(10):
            sender.send([data(bytes([i, j]) * 50_000, 1)])

    threads = [threading.Thread(target=send, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    came: set[Body] = set()
    while len(came) < len(bodies):
        came.update(receiver.receive([], 10))
    assert came == bodies
    for thread in threads:
        thread.join()


def test_large_bodies_are_read_to_where_they_stay(open_channel: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_READ_BYTES", 1000)
    sender, receiver = open_channel(0), open_channel(1)
    rng = random.Random(5)
    bodies = [rng.randbytes(length) for length in (996, 1, 1001, 2, 3, 400_000, 1000, 1 << 20, 5000, 999, 50_000)]
    for body in bodies:
        sender.send([data(body, 1)])
    came: list[Body] = []
    while len(came) < len(bodies):
        came.extend(receiver.receive([], 10))
    assert came == bodies
    large = [body for body in came if len(body) > 1000]
    assert all(isinstance(body, memoryview) and body.readonly for body in large)


def test_a_connection_that_ends_within_a_large_body_is_an_error(open_channel: Open, tmp_path: Path) -> None:
    channel = open_channel(0, frame_bytes=4 << 20)
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(tmp_path / "0.sock"))
        stranger.sendall(struct.pack("<II", 1, 3) + b"abc" + struct.pack("<I", 2 << 20) + bytes(1_500_000))
    assert channel.receive([], 10) == [b"abc"]
    with pytest.raises(ChannelError, match="rank 1 ended in the middle of a frame"):
        channel.receive([], 10)
