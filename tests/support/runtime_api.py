"""A minimal Lambda Runtime API that serves one event, records the runtime's responses, and then stops the runtime."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_PATH = "/2018-06-01/runtime/"
_REQUEST = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"


@dataclass(frozen=True)
class Answer:
    """A response of the runtime: the end of the path (``response``, ``error`` or ``init/error``) and the JSON body."""

    kind: str
    body: Any


class RuntimeApi:
    """A server of one event on 127.0.0.1; `answers` holds the responses.

    Parameters
    ----------
    event : object
    on_call : callable, optional
        Called at the beginning of each request of the runtime: first when it has started, then when it has answered.
    """

    def __init__(self, event: object, on_call: Callable[[], None] = lambda: None) -> None:
        self.answers: list[Answer] = []
        events = [event]
        answers = self.answers

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                on_call()
                if self.path != f"{_PATH}invocation/next" or not events:
                    self._reply(500, b"{}")  # makes the runtime exit after the first invocation
                    return
                self._reply(
                    200,
                    json.dumps(events.pop()).encode(),
                    {
                        "Lambda-Runtime-Aws-Request-Id": _REQUEST,
                        "Lambda-Runtime-Deadline-Ms": str(int((time.time() + 60) * 1000)),
                        "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:000000000000:function:f",
                    },
                )

            def do_POST(self) -> None:
                on_call()
                kind = self.path.removeprefix(_PATH).removeprefix(f"invocation/{_REQUEST}/")
                answers.append(Answer(kind, json.loads(self._body())))
                self._reply(202, b"{}")

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers["Content-Length"]))
                chunks = []
                while size := int(self.rfile.readline(), 16):
                    chunks.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(chunks)

            def _reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                headers = {"Content-Type": "application/json", **(headers or {})}  # awslambdaric crashes without a type
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._address = f"127.0.0.1:{self._server.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that Lambda sets for a runtime."""
        return {
            "AWS_LAMBDA_RUNTIME_API": self._address,
            "AWS_LAMBDA_FUNCTION_NAME": "f",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769",
            "AWS_REGION": "us-east-1",
        }

    def __enter__(self) -> RuntimeApi:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
