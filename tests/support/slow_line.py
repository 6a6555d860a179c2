"""A slow line to a service: a TCP proxy that forwards what clients send at a limited rate."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

_BLOCK = 8192
_BUFFER = 16384


class SlowLine:
    """A line to `upstream_url` whose connections share a rate upstream; use it as a context manager.

    The buffers of its connections are small, so that clients notice the rate.

    Attributes
    ----------
    bytes_per_s : float
        Rate at which requests are forwarded, by all connections together; answers are not slowed.
    is_dead : bool
        Whether nothing is forwarded any more, while connections stay open.
    url : str
        Endpoint of the line.
    """

    def __init__(self, upstream_url: str, bytes_per_s: float) -> None:
        self.bytes_per_s = bytes_per_s
        self.is_dead = False
        host = urlsplit(upstream_url)
        self._upstream = (host.hostname or "", host.port or 80)
        self._lock = threading.Lock()
        self._free_at = 0.0
        self._sockets: list[socket.socket] = []
        self._listener = socket.socket()
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._listener, *self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            service = socket.create_connection(self._upstream)
            service.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets += [client, service]
            threading.Thread(target=self._forward, args=(client, service, True), daemon=True).start()
            threading.Thread(target=self._forward, args=(service, client, False), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, is_slow: bool) -> None:
        with suppress(OSError):
            while block := source.recv(_BLOCK):
                if is_slow:
                    self._wait_for(len(block))
                while self.is_dead:
                    time.sleep(0.05)
                target.sendall(block)
            target.shutdown(socket.SHUT_WR)

    def _wait_for(self, size: int) -> None:
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + size / self.bytes_per_s
            pause = self._free_at - now
        time.sleep(pause)
