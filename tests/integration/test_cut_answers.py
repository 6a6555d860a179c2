"""Responses truncated at any byte: every client detects them and retries."""

from __future__ import annotations

import json
import threading
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from fsd_inference.aws.clients import Clients, request
from fsd_inference.channels.base import Expected, Frame, Kind
from fsd_inference.channels.queue import QueueChannel, QueueSettings
from fsd_inference.config import RetrySettings
from fsd_inference.usage import UsageMeter

RETRY = RetrySettings(attempts=2, base_s=0, cap_s=0)
TOPIC = "arn:aws:sns:us-east-1:000000000000:topic"
XMLNS = "http://sns.amazonaws.com/doc/2010-03-31/"
PUBLISHED = f"""<PublishBatchResponse xmlns="{XMLNS}"><PublishBatchResult><Successful><member><Id>0</Id>\
<MessageId>m</MessageId></member></Successful><Failed/></PublishBatchResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata>\
</PublishBatchResponse>"""
LISTED = """<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name>\
<KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated><Contents><Key>one</Key>\
<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>"x"</ETag><Size>3</Size></Contents></ListBucketResult>"""
MADE = json.dumps({"QueueUrl": "http://127.0.0.1/0/queue"})


class Service(ThreadingHTTPServer):
    """Answers each request with `body`, the next one with its first `cut` bytes, as whole or as broken off."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.body, self.cut, self.says_whole = b"", 0, False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Service

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        service, body = self.server, self.server.body
        sent = body if service.cut < 0 else body[: service.cut]
        service.cut = -1
        is_json = body.startswith(b"{")
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.0" if is_json else "text/xml")
        self.send_header("ETag", '"x"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.send_header("Content-Length", str(len(body) if service.says_whole else len(sent)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(sent)

    do_GET = do_POST = _answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service() as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture(scope="module")
def clients(service: Service) -> Iterator[Clients]:
    made = Clients(service.url, emulated=True)
    yield made
    made.close()


def outcomes(service: Service, body: bytes, ask: Callable[[], Any], meter: UsageMeter) -> None:
    """Ask once for the whole answer, then with one that is cut at each byte, in both ways."""
    service.body, service.cut = body, -1
    expected = ask()
    for says_whole in (True, False):
        service.says_whole = says_whole
        for cut in range(len(body)):
            before, service.cut = meter.snapshot().retries, cut
            assert ask() == expected, (says_whole, cut)
            assert meter.snapshot().retries == before + 1, (says_whole, cut)
    service.says_whole = False


def test_the_stacks_upkeep(service: Service, clients: Clients) -> None:
    meter = UsageMeter()

    def make() -> object:
        call = lambda: clients.sqs.create_queue(QueueName="queue")["QueueUrl"]  # noqa: E731
        return request("sqs.manage", "make a queue", call, meter=meter, retry=RETRY)

    outcomes(service, MADE.encode(), make, meter)


def channel(clients: Clients, url: str) -> QueueChannel:
    return QueueChannel(
        clients.topics, clients.queues, topics=[TOPIC], queue_url=url, workers=2, settings=QueueSettings(retry=RETRY)
    )


def test_publishing(service: Service, clients: Clients) -> None:
    opened = channel(clients, f"{service.url}/0/queue")
    frame = Frame(Kind.DATA, 0, 0, (1,), b"frame")
    outcomes(service, PUBLISHED.encode(), lambda: opened.send([frame]).result(10), opened.meter)
    opened.close()


def test_receiving(service: Service, clients: Clients) -> None:
    """A receive that took messages and lost its answer is not taken for one that found none."""
    opened = channel(clients, f"{service.url}/0/queue")
    message = {"MessageId": "m", "ReceiptHandle": "h", "Body": urlsafe_b64encode(b"frames").decode()}
    body = json.dumps({"Messages": [message]}).encode()
    outcomes(service, body, lambda: opened.receive([Expected(Kind.DATA, 0, 0, 1)], 1.0), opened.meter)
    opened.close()


def test_listing_and_reading_objects(service: Service, clients: Clients) -> None:
    meter = UsageMeter()
    store = clients.open_bucket("bucket", meter=meter, retry=RETRY)
    outcomes(service, LISTED.encode(), lambda: [info.key for info in store.list("")], meter)
    service.body, service.says_whole = b"an object's data", True  # cut short as if whole, only its reader can know
    for cut in range(len(service.body)):
        service.cut = cut
        assert store.get("one") == service.body
    store.close()
