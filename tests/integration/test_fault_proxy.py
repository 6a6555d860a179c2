"""The proxy: what it forwards, and what it answers."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fsd_inference.chaos.proxy import Fault, FaultProxy, classify

seen: list[bytes] = []


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        seen.append(body)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def echo() -> Iterator[FaultProxy]:
    seen.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    with FaultProxy(f"http://127.0.0.1:{server.server_port}") as proxy:
        yield proxy
    server.shutdown()
    thread.join()
    server.server_close()


def put(proxy: FaultProxy, body: bytes = b"abc") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(proxy.url.removeprefix("http://"), timeout=10)
    connection.request("PUT", "/bucket/key", body=body)
    answer = connection.getresponse()
    answer.body = answer.read()  # type: ignore[attr-defined]
    connection.close()
    return answer


def test_a_request_is_forwarded_twice(echo: FaultProxy) -> None:
    echo.hook = lambda _: Fault(twice=True)
    assert put(echo).body == b"abc"  # type: ignore[attr-defined]
    assert seen == [b"abc", b"abc"]
    assert echo.counts == {"s3.put": 1}


def test_bodies_are_changed(echo: FaultProxy) -> None:
    echo.hook = lambda _: Fault(change_request=lambda body: body + b"d", change_answer=bytes.upper)
    assert put(echo).body == b"ABCD"  # type: ignore[attr-defined]
    assert seen == [b"abcd"]


def test_the_clock_of_the_service_is_shifted(echo: FaultProxy) -> None:
    now = parsedate_to_datetime(put(echo).headers["Date"])
    echo.hook = lambda _: Fault(skew_s=600.0)
    later = parsedate_to_datetime(put(echo).headers["Date"])
    assert 595 <= (later - now).total_seconds() <= 660


def test_an_answer_of_its_own(echo: FaultProxy) -> None:
    echo.hook = lambda _: Fault(status=429, headers=(("x-amzn-ErrorType", "TooManyRequestsException"),), body="{}")
    answer = put(echo)
    assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (429, "TooManyRequestsException")
    assert seen == []


def test_invocations_are_told_from_objects() -> None:
    path = "/2015-03-31/functions/fsd-worker-512/invocations"
    assert classify("POST", path, {}, b"{}") == "lambda.invoke"
