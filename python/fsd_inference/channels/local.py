"""Channels between local processes over Unix-domain sockets in a run directory.

Every rank listens on ``<directory>/<rank>.sock``. A connection is one-way: first the sender's rank, then bodies, each
preceded by its length (all little-endian u32). One thread per channel does all socket I/O, so incoming bytes are always
drained and a send never waits for another target. An abort is also written to the directory as ``<rank>.abort``, for
ranks that start later.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fsd_inference.channels.base import Body, Channel, Expected, Frame, Limits
from fsd_inference.channels.in_process import LOCAL_LIMITS
from fsd_inference.channels.mailbox import Mailbox
from fsd_inference.channels.sending import Joined, check_frames, check_limits, closed_error, done
from fsd_inference.errors import ChannelError, PeerGoneError, SettingError, reason
from fsd_inference.threads import start
from fsd_inference.usage import UsageMeter

_U32 = struct.Struct("<I")
_READ_BYTES = 1 << 20
"""Bytes that are read at a time; larger bodies are read to where they stay."""
_WRITE_PIECES = 64
"""Buffers passed to the operating system in one call (at most IOV_MAX, 1024 on Linux)."""
_RETRY_S = 0.02
"""Seconds between attempts to connect to a rank that does not listen yet."""
_ABORT_S = 5.0
"""Timeout in seconds of an abort to a rank that runs but reads nothing."""
_LONGEST_ADDRESS = 100
"""Maximum bytes of a socket's path; Linux allows 107, macOS 103."""
_OPEN_FILES = Path("/proc/self/fd")
"""Folder in which an open directory has a short path, on Linux."""
_NOT_THERE_YET = frozenset({errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN})


@dataclass(slots=True)
class _Outgoing:
    """A body to send to one target: its buffers, the future to complete, and the deadline for the target to listen."""

    pieces: deque[memoryview]
    joined: Joined
    give_up: float


@dataclass(slots=True)
class _Peer:
    """The connection to one target."""

    rank: int
    socket: socket.socket | None = None
    queue: deque[_Outgoing] = field(default_factory=deque)
    retry_at: float = 0.0
    error: ChannelError | None = None


@dataclass(slots=True)
class _Source:
    """A connection from another rank.

    `rank` is -1 until the sender's rank has been read. `buffer` has the bytes of a body that has not arrived
    completely. A large one is read to where it stays instead: `body`, of which `filled` bytes have arrived.
    """

    socket: socket.socket
    rank: int = -1
    buffer: bytearray = field(default_factory=bytearray)
    body: memoryview | None = None
    filled: int = 0

    def read(self) -> int:
        """Read what has arrived, and return the number of bytes; 0 if the other end is closed."""
        if self.body is not None:
            count = self.socket.recv_into(self.body[self.filled :])
            self.filled += count
            return count
        received = self.socket.recv(_READ_BYTES)
        self.buffer += received
        return len(received)


def check_run_directory(directory: Path, workers: int) -> None:
    """Raise SettingError if the directory's path is too long for the sockets of `workers` ranks."""
    if not _is_short(directory.absolute() / f"{workers - 1}.sock") and not _OPEN_FILES.is_dir():
        raise SettingError(
            f"the path {directory} is too long for sockets, and there is no {_OPEN_FILES} to shorten it: "
            "set TMPDIR to a directory with a shorter path"
        )


def _is_short(path: Path) -> bool:
    return len(os.fsencode(path)) <= _LONGEST_ADDRESS


class LocalChannel(Channel):
    """One rank's channel to the other local processes of its attempt.

    Parameters
    ----------
    directory : path
        An existing directory for this attempt only, accessible to this user only (anyone who can connect can send).
    rank, workers : int
        This rank and P.
    connect_timeout_s : float
        Seconds that a send waits for a target that does not listen yet before its future fails.
    limits : Limits, optional
        Size limits of the channel.

    Raises
    ------
    ChannelError
        The socket cannot be opened, for example because a socket of this rank already exists.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        rank: int,
        workers: int,
        *,
        connect_timeout_s: float = 60.0,
        limits: Limits = LOCAL_LIMITS,
    ) -> None:
        self.limits = limits
        self.meter = UsageMeter()
        self._rank = rank
        self._connect_timeout_s = connect_timeout_s
        self._directory = Path(directory).absolute()
        self._mailbox = Mailbox()
        self._lock = threading.Lock()  # guards the peers' queues and `_closed`
        self._closed = False
        self._peers = [_Peer(target) for target in range(workers)]
        with contextlib.ExitStack() as opened:  # closed again if anything fails
            self._open(opened)
            self._release = opened.pop_all().close
        # Only once the socket listens: an abort is then either found here or arrives over the socket.
        self._mailbox.put([path.read_bytes() for path in sorted(self._directory.glob("*.abort"))])
        self._thread = threading.Thread(target=self._run, name=f"sockets-{rank}", daemon=True)
        start(self._thread)

    def _open(self, opened: contextlib.ExitStack) -> None:
        """Open the channel's files and sockets, and listen."""
        try:
            self._directory_fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise ChannelError(f"cannot open the run directory {self._directory}: {reason(error)}") from error
        opened.callback(os.close, self._directory_fd)
        try:
            self._selector = opened.enter_context(selectors.DefaultSelector())
            self._wake_in, self._wake_out = map(opened.enter_context, socket.socketpair())
            self._listener = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            for own in (self._wake_in, self._wake_out, self._listener):
                own.setblocking(False)
            self._listener.bind(self._address(self._rank))
            self._listener.listen(len(self._peers))
        except OSError as error:
            hint = "; give every attempt a run directory of its own" if error.errno == errno.EADDRINUSE else ""
            raise ChannelError(
                f"rank {self._rank} cannot listen in {self._directory}: {reason(error)}{hint}"
            ) from error
        self._selector.register(self._wake_in, selectors.EVENT_READ, None)
        self._selector.register(self._listener, selectors.EVENT_READ, self._listener)

    # --- the contract ------------------------------------------------------------------------------------------------

    def send(self, frames: Sequence[Frame]) -> Future[None]:
        check_frames(frames, self.limits, len(self._peers))
        pieces = [(target, frame.body) for frame in frames for target in frame.targets]
        if not pieces:
            return done()
        joined = Joined(len(pieces))
        self._enqueue(pieces, joined, time.monotonic() + self._connect_timeout_s)
        for frame in frames:
            self.meter.sent(frames=1, wire_bytes=len(frame.body), body_bytes=len(frame.body))
        return joined.future

    def receive(self, expected: Sequence[Expected], timeout_s: float) -> Sequence[Body]:  # noqa: ARG002 - takes all
        bodies = self._mailbox.take(timeout_s)
        self.meter.received(sum(map(len, bodies)))
        return bodies

    def abort(self, frame: Frame) -> None:
        """Store the abort for ranks that start later, and send it to all that listen; ended ranks need none."""
        if self._closed:
            raise closed_error()
        check_limits([frame], self.limits)
        left, failed = self._directory / f"{self._rank}.abort", None
        try:
            left.with_suffix(".tmp").write_bytes(frame.body)
            left.with_suffix(".tmp").replace(left)
        except OSError as error:
            failed = error  # the abort can still be sent to the ranks that listen
        joined = Joined(len(self._peers))
        self._enqueue([(peer.rank, frame.body) for peer in self._peers], joined, give_up=0.0)
        self.meter.sent(frames=1, wire_bytes=len(frame.body), body_bytes=len(frame.body))
        _, late = wait([joined.future], _ABORT_S)
        if late:
            raise ChannelError(f"not all ranks have accepted the abort after {_ABORT_S:g} s: a process is suspended")
        if failed is not None:
            raise ChannelError(f"cannot write an abort to {self._directory}: {reason(failed)}") from failed

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._wake()
        self._thread.join()
        self._mailbox.close()

    # --- handing over to the thread ----------------------------------------------------------------------------------

    def _enqueue(self, pieces: Sequence[tuple[int, bytes]], joined: Joined, give_up: float) -> None:
        with self._lock:
            if self._closed:
                raise closed_error()
            for target, body in pieces:
                buffers = deque((memoryview(_U32.pack(len(body))), memoryview(body)))
                self._peers[target].queue.append(_Outgoing(buffers, joined, give_up))
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: the thread will wake anyway; closed: it has ended
            self._wake_out.send(b"\0")

    def _address(self, rank: int) -> str:
        path = self._directory / f"{rank}.sock"
        return str(path if _is_short(path) else _OPEN_FILES / str(self._directory_fd) / path.name)

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closed:
                self._feed_peers()
                for key, _ in self._selector.select(self._pause()):
                    if key.data is None:
                        self._wake_in.recv(4096)
                    elif key.data is self._listener:
                        self._accept()
                    elif isinstance(key.data, _Source):
                        self._read(key.data)
                    # A peer that is writable again is served at the top of the loop.
        except Exception as error:  # noqa: BLE001 - without this thread `receive` would see no body and no error
            self._mailbox.fail(ChannelError(f"the sockets of rank {self._rank} have failed: {error}"))
        finally:
            self._shut_down()

    def _pause(self) -> float | None:
        """Return the seconds until the next attempt to connect; None if none is pending."""
        with self._lock:
            retries = [peer.retry_at for peer in self._peers if peer.socket is None and peer.queue]
        return max(0.0, min(retries) - time.monotonic()) if retries else None

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            if not isinstance(error, BlockingIOError):
                self._selector.unregister(self._listener)  # otherwise accepting would fail again in an endless loop
                self._mailbox.fail(ChannelError(f"rank {self._rank} cannot accept a connection: {reason(error)}"))
            return
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ, _Source(connection))

    def _read(self, source: _Source) -> None:
        try:
            count = source.read()
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if not count:
            if source.buffer or source.body is not None:
                known = source.rank if source.rank >= 0 else None
                self._mailbox.fail(PeerGoneError(f"rank {source.rank} ended in the middle of a frame", rank=known))
            self._drop(source)
            return
        if source.body is not None:
            if source.filled == len(source.body):
                self._mailbox.put([source.body.toreadonly()])
                source.body = None
            return
        if source.rank < 0:
            if len(source.buffer) < _U32.size:
                return
            source.rank = _U32.unpack_from(source.buffer)[0]
            del source.buffer[: _U32.size]
        self._split(source)

    def _split(self, source: _Source) -> None:
        """Move the complete bodies at the front of the source's buffer to the mailbox."""
        start, bodies = 0, list[Body]()
        while len(source.buffer) - start >= _U32.size:
            (length,) = _U32.unpack_from(source.buffer, start)
            if not 0 < length <= self.limits.frame_bytes:
                self._mailbox.fail(
                    ChannelError(
                        f"rank {source.rank} announced a frame of {length} bytes, but the channel accepts "
                        f"1 to {self.limits.frame_bytes}"
                    )
                )
                self._drop(source)
                break
            end = start + _U32.size + length
            if end > len(source.buffer):
                if length > _READ_BYTES:
                    source.body = np.empty(length, np.uint8).data
                    arrived = memoryview(source.buffer)[start + _U32.size :]
                    source.filled = len(arrived)
                    source.body[: source.filled] = arrived
                    arrived.release()  # a buffer with a view cannot be cut
                    start = len(source.buffer)
                break
            bodies.append(bytes(memoryview(source.buffer)[start + _U32.size : end]))
            start = end
        del source.buffer[:start]
        if bodies:
            self._mailbox.put(bodies)

    def _drop(self, source: _Source) -> None:
        self._selector.unregister(source.socket)
        source.socket.close()

    def _feed_peers(self) -> None:
        """Connect and write as far as possible without blocking."""
        now = time.monotonic()
        for peer in self._peers:
            if not peer.queue:
                continue
            if peer.error is None and peer.socket is None and now >= peer.retry_at:
                self._connect(peer, now)
            if peer.error is not None:
                self._fail(peer, peer.error)
            elif peer.socket is not None:
                self._write(peer)

    def _connect(self, peer: _Peer, now: float) -> None:
        with contextlib.ExitStack() as opened:  # closed again if anything fails
            try:
                connection = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                connection.setblocking(False)
                connection.connect(self._address(peer.rank))
                connection.send(_U32.pack(self._rank))  # the buffer of a new connection has room
            except OSError as error:
                if error.errno not in _NOT_THERE_YET:
                    peer.error = ChannelError(f"cannot connect to rank {peer.rank}: {reason(error)}")
                    return
                peer.retry_at = now + _RETRY_S
                self._give_up(peer, now)
                return
            opened.pop_all()
        peer.socket = connection

    def _give_up(self, peer: _Peer, now: float) -> None:
        """Fail the sends whose target does not listen in time."""
        with self._lock:
            late = [outgoing for outgoing in peer.queue if outgoing.give_up <= now]
            peer.queue = deque(outgoing for outgoing in peer.queue if outgoing.give_up > now)
        for outgoing in late:
            outgoing.joined.end(
                ChannelError(
                    f"rank {peer.rank} does not listen in {self._directory} after {self._connect_timeout_s:g} s; "
                    "check whether it could start"
                )
            )

    def _write(self, peer: _Peer) -> None:
        assert peer.socket is not None  # noqa: S101 - the caller has checked
        try:
            while peer.queue:
                sent = peer.socket.sendmsg(self._gathered(peer))
                self._sent(peer, sent)
        except BlockingIOError:
            self._watch(peer, writable=True)
            return
        except OSError as error:
            reason = error.strerror or error
            text = f"rank {peer.rank} is gone ({reason}): it accepts no more frames"
            peer.error = PeerGoneError(text, rank=peer.rank)
            self._fail(peer, peer.error)
            return
        self._watch(peer, writable=False)

    def _gathered(self, peer: _Peer) -> list[memoryview]:
        """Return the next buffers to write, which may belong to several bodies."""
        with self._lock:
            buffers: list[memoryview] = []
            for outgoing in peer.queue:
                buffers += outgoing.pieces
                if len(buffers) >= _WRITE_PIECES:
                    break
        return buffers

    def _sent(self, peer: _Peer, count: int) -> None:
        """Remove `count` written bytes from the front of the queue."""
        while count:
            outgoing = peer.queue[0]
            piece = outgoing.pieces[0]
            if count < len(piece):
                outgoing.pieces[0] = piece[count:]
                return
            count -= len(piece)
            outgoing.pieces.popleft()
            if not outgoing.pieces:
                with self._lock:
                    peer.queue.popleft()
                outgoing.joined.end()

    def _watch(self, peer: _Peer, *, writable: bool) -> None:
        """Tell the selector whether to wake the thread when a full connection becomes writable again."""
        assert peer.socket is not None  # noqa: S101 - the caller has written to it
        watched = peer.socket in self._selector.get_map()
        if writable and not watched:
            self._selector.register(peer.socket, selectors.EVENT_WRITE, peer)
        elif watched and not writable:
            self._selector.unregister(peer.socket)

    def _fail(self, peer: _Peer, error: ChannelError) -> None:
        if peer.socket is not None:
            self._watch(peer, writable=False)
            peer.socket.close()
            peer.socket = None
        with self._lock:
            failed, peer.queue = peer.queue, deque()
        for outgoing in failed:
            outgoing.joined.end(error)

    def _shut_down(self) -> None:
        with self._lock:
            self._closed = True
        for key in list(self._selector.get_map().values()):
            if isinstance(key.data, _Source):
                self._drop(key.data)
        for peer in self._peers:
            self._fail(peer, closed_error())
        with contextlib.suppress(OSError):
            os.unlink(f"{self._rank}.sock", dir_fd=self._directory_fd)
        self._release()
