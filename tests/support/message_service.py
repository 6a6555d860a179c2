"""A service on this machine that records requests and gives the answers that a test has queued up."""

from __future__ import annotations

import json
import socket
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from fsd_inference.services import QueueClient, ServiceEndpoint, TopicClient

REGION = "us-east-1"


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True, strict_parsing=True))

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    hangs_up: bool = False
    """Whether the connection is closed after the answer, although the answer does not say so."""


class LoopbackService(ThreadingHTTPServer):
    """Serves SNS and SQS on this machine while it is entered, each request by `handler`."""

    daemon_threads = True

    def __init__(self, handler: type[LoopbackHandler], region: str, answer_timeout_s: float) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.region, self._answer_timeout_s = region, answer_timeout_s
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()

    def endpoint(self, **options: Any) -> ServiceEndpoint:
        given: dict[str, Any] = {"keys": lambda: ("id", "secret", None), "proxy": None, "certificates": b""}
        given |= {"connections": 4, "connect_timeout_s": 5.0, "answer_timeout_s": self._answer_timeout_s}
        return ServiceEndpoint(**({"url": self.url, "region": self.region} | given | options))

    @property
    def topics(self) -> TopicClient:
        return TopicClient(self.endpoint())

    @property
    def queues(self) -> QueueClient:
        return QueueClient(self.endpoint())


class LoopbackHandler(BaseHTTPRequestHandler):
    """Keeps connections open, and logs nothing."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def read_body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class MessageService(LoopbackService):
    """Records requests, and gives each the next answer; without one, the last answer is given again."""

    def __init__(self) -> None:
        super().__init__(_Handler, REGION, answer_timeout_s=20.0)
        self.requests: list[Request] = []
        self.answers: deque[Answer] = deque()
        self.connections = 0
        self.lock = threading.Lock()
        self.hung_up = threading.Event()

    def emptied(self) -> Self:
        """Forget requests and answers, so that the next test begins with none."""
        self.requests.clear()
        self.answers.clear()
        return self


class _Handler(LoopbackHandler):
    server: MessageService

    def setup(self) -> None:
        super().setup()
        with self.server.lock:
            self.server.connections += 1

    def do_POST(self) -> None:
        body = self.read_body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        with self.server.lock:
            self.server.requests.append(Request(self.path, headers, body))
            answers = self.server.answers
            answer = answers.popleft() if len(answers) > 1 else answers[0]
        self.answer(answer.status, answer.headers, answer.body)
        if answer.hangs_up:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            self.server.hung_up.set()


def published(failed: Iterable[Mapping[str, Any]] = ()) -> Answer:
    """Return SNS's answer to a batch of which the entries `failed` failed."""
    entries = "".join(
        f"<member>{''.join(f'<{name}>{_xml(value)}</{name}>' for name, value in entry.items())}</member>"
        for entry in failed
    )
    return Answer(
        '<PublishBatchResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishBatchResult><Successful/>'
        f"<Failed>{entries}</Failed></PublishBatchResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata>"
        "</PublishBatchResponse>".encode()
    )


def _xml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else escape(str(value))


def received(*texts: str) -> Answer:
    """Return SQS's answer with messages of these texts."""
    messages = [
        {"MessageId": str(number), "ReceiptHandle": f"receipt-{number}", "Body": text, "MD5OfBody": "0"}
        for number, text in enumerate(texts)
    ]
    return Answer(json.dumps({"Messages": messages} if messages else {}).encode())


def deleted(failed: Iterable[Mapping[str, Any]] = ()) -> Answer:
    """Return SQS's answer to a deletion of which the entries `failed` failed."""
    return Answer(json.dumps({"Successful": [], "Failed": list(failed)}).encode())
