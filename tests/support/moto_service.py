"""moto, which replaces the connections of boto3, behind a socket for clients with connections of their own."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from botocore.awsrequest import AWSPreparedRequest
from botocore.compat import HTTPHeaders
from moto.core.models import botocore_stubber

from fsd_inference.services import QueueClient, ServiceEndpoint, TopicClient


class MotoService(ThreadingHTTPServer):
    """Answers requests to SNS and SQS in a region from moto's state, while `mock_aws` is in effect."""

    daemon_threads = True

    def __init__(self, region: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.region = region
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()

    def _endpoint(self) -> ServiceEndpoint:
        return ServiceEndpoint(
            f"http://127.0.0.1:{self.server_port}",
            self.region,
            lambda: ("testing", "testing", None),
            proxy=None,
            certificates=b"",
            connections=4,
            connect_timeout_s=5.0,
            answer_timeout_s=60.0,
        )

    @property
    def topics(self) -> TopicClient:
        return TopicClient(self._endpoint())

    @property
    def queues(self) -> QueueClient:
        return QueueClient(self._endpoint())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: MotoService

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        service = "sqs" if "X-Amz-Target" in self.headers else "sns"
        url = f"https://{service}.{self.server.region}.amazonaws.com/"
        headers: Any = HTTPHeaders()
        for name, value in self.headers.items():
            headers[name] = value
        answer = botocore_stubber("before-send", AWSPreparedRequest("POST", url, headers, body, False))
        assert answer is not None, f"moto does not know {url}"
        self.send_response_only(answer.status_code)
        for name, value in answer.headers.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, *_: object) -> None:
        """Log nothing."""
