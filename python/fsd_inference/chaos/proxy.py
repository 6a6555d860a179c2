"""A reverse proxy in front of an emulator that counts requests by kind independently and can inject faults."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

_ACTIONS = {
    "Publish": "sns.publish",
    "PublishBatch": "sns.publish",
    "ReceiveMessage": "sqs.receive",
    "DeleteMessage": "sqs.delete",
    "DeleteMessageBatch": "sqs.delete",
    "SendMessage": "sqs.send",
    "SendMessageBatch": "sqs.send",
    "PurgeQueue": "sqs.purge",
}
_INVOCATION = "/invocations"
_TIMES = {"date", "last-modified"}
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass(frozen=True)
class Request:
    """A request from the client; `number` counts the requests of its kind from 0."""

    kind: str
    number: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Change = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Fault:
    """A fault to inject into a request.

    Attributes
    ----------
    status : int
        HTTP status to answer with, without forwarding the request; 0 to forward it.
    code : str
        Code of the S3 error in that answer, unless `body` is given.
    body : str
        Body of that answer.
    headers : tuple of (str, str)
        Headers of that answer.
    reset : bool
        Reset the connection before the request is forwarded.
    lose_answer : bool
        Reset the connection after the service has processed the request.
    cut_answer : bool
        Reset the connection in the middle of the response body.
    whole : bool
        Forward the request without its range, so that the answer is the whole object, with status 200.
    delay_s : float
        Delay in seconds before the request is handled; can be combined with the others.
    twice : bool
        Forward the request twice, and answer with the second answer.
    change_request, change_answer : callable or None
        Returns the body to forward, or to answer with, in place of the one given.
    skew_s : float
        Seconds by which the times in the headers of the answer are shifted.
    """

    status: int = 0
    code: str = "SlowDown"
    body: str = ""
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/xml"),)
    reset: bool = False
    lose_answer: bool = False
    cut_answer: bool = False
    whole: bool = False
    delay_s: float = 0.0
    twice: bool = False
    change_request: Change | None = None
    change_answer: Change | None = None
    skew_s: float = 0.0


Hook = Callable[[Request], Fault | None]


class FaultProxy:
    """A proxy that forwards requests to `upstream_url`; use it as a context manager.

    Attributes
    ----------
    counts : Counter
        Requests by kind ("s3.get", "sns.publish", "sqs.receive"...), including those with faults.
    hook : callable or None
        Returns the fault to inject into a request, or None; None injects no faults.
    upstream : str
        Host and port to which requests are forwarded; may be changed at any time.
    url : str
        Endpoint of the proxy.
    """

    def __init__(self, upstream_url: str) -> None:
        self.upstream = urlsplit(upstream_url).netloc
        self.hook: Hook | None = None
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def break_first(self, fault: Fault, *, times: int, kind: str | None = None) -> None:
        """Inject a fault into the next `times` requests, of one kind if given."""
        left = [times]

        def hook(request: Request) -> Fault | None:
            if kind is not None and request.kind != kind:
                return None
            with self._lock:
                left[0] -= 1
                return fault if left[0] >= 0 else None

        self.hook = hook

    def reset_counts(self) -> None:
        """Count from 0 again."""
        with self._lock:
            self.counts.clear()

    def see(self, kind: str) -> int:
        """Count a request of a kind, and return how many of that kind came before it."""
        with self._lock:
            self.counts[kind] += 1
            return self.counts[kind] - 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore broken connections, which are expected here."""


class _Handler(BaseHTTPRequestHandler):
    owner: FaultProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self._upstream = http.client.HTTPConnection(self.owner.upstream, timeout=120)

    def finish(self) -> None:
        self._upstream.close()
        super().finish()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""

    def _handle(self) -> None:
        body = self._read_body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        kind = classify(self.command, self.path, headers, body)
        request = Request(kind, self.owner.see(kind), self.command, self.path, headers, body)
        hook = self.owner.hook
        fault = (hook(request) if hook is not None else None) or Fault()
        time.sleep(fault.delay_s)
        if fault.reset:
            self._break()
        elif fault.status:
            error = fault.body or f"<Error><Code>{fault.code}</Code><Message>injected</Message></Error>"
            self._answer(fault.status, list(fault.headers), error.encode())
        else:
            if fault.change_request is not None:
                body = fault.change_request(body)
            dropped = {"range"} if fault.whole else set()
            if fault.twice:
                self._forward(body, dropped=dropped)
            status, answer_headers, text = self._forward(body, dropped=dropped)
            if fault.change_answer is not None:
                text = fault.change_answer(text)
            answer_headers = [(name, _shifted(name, value, fault.skew_s)) for name, value in answer_headers]
            if fault.lose_answer:
                self._break()
            elif fault.cut_answer:
                self._answer(status, answer_headers, text, cut=True)
                self._break()
            else:
                self._answer(status, answer_headers, text)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815 - as http.server looks for them

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _forward(self, body: bytes, dropped: set[str]) -> tuple[int, list[tuple[str, str]], bytes]:
        dropped = dropped | _HOP_BY_HOP
        headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
        headers.pop("Expect", None)
        if body or self.command in {"PUT", "POST"}:
            headers["Content-Length"] = str(len(body))
        self._upstream.request(self.command, self.path, body=body or None, headers=headers)
        answer = self._upstream.getresponse()
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP]
        text = answer.read()
        if self.command == "HEAD":
            kept.append(("Content-Length", answer.getheader("Content-Length") or "0"))
        return answer.status, kept, text

    def _answer(self, status: int, headers: list[tuple[str, str]], text: bytes, *, cut: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name == "Content-Length" for name, _ in headers):
            self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text[: len(text) // 2] if cut else text)

    def _break(self) -> None:
        """Reset the connection: with a linger time of 0, close() sends RST."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


def classify(method: str, path: str, headers: dict[str, str], body: bytes) -> str:
    """Return the kind of a request as in `Usage.requests`; for management requests, such as "sns.CreateTopic"."""
    target = headers.get("x-amz-target", "")
    if target.startswith("AmazonSQS."):
        action = target.partition(".")[2]
        return _ACTIONS.get(action, f"sqs.{action}")
    if headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        action = body.partition(b"Action=")[2].partition(b"&")[0].decode()
        return _ACTIONS.get(action, f"sns.{action}")
    where = urlsplit(path)
    if where.path.endswith(_INVOCATION):
        return "lambda.invoke"
    return _classify_s3(method, where.path, parse_qs(where.query, keep_blank_values=True))


def _classify_s3(method: str, path: str, query: dict[str, list[str]]) -> str:
    has_key = len(path.strip("/").split("/")) > 1
    if method == "POST" and "delete" in query:
        return "s3.delete"
    if "uploads" in query or "uploadId" in query:  # of a multipart upload
        return {"GET": "s3.list", "DELETE": "s3.delete"}.get(method, "s3.put")
    if not has_key:
        return "s3.list" if method == "GET" and "list-type" in query else "s3.bucket"
    return f"s3.{method.lower()}"


def _shifted(name: str, value: str, seconds: float) -> str:
    """Return the value of a header, moved by some seconds if it is a time."""
    if not seconds or name.lower() not in _TIMES:
        return value
    return format_datetime(parsedate_to_datetime(value) + timedelta(seconds=seconds), usegmt=True)
