"""moto, which replaces the connections of boto3, behind a socket for clients with connections of their own."""

from __future__ import annotations

from typing import Any

from botocore.awsrequest import AWSPreparedRequest
from botocore.compat import HTTPHeaders
from moto.core.models import botocore_stubber

from tests.support.message_service import LoopbackHandler, LoopbackService


class MotoService(LoopbackService):
    """Answers requests to SNS and SQS in a region from moto's state, while `mock_aws` is in effect."""

    def __init__(self, region: str) -> None:
        super().__init__(_Handler, region, answer_timeout_s=60.0)


class _Handler(LoopbackHandler):
    server: MotoService

    def do_POST(self) -> None:
        body = self.read_body()
        service = "sqs" if "X-Amz-Target" in self.headers else "sns"
        url = f"https://{service}.{self.server.region}.amazonaws.com/"
        headers: Any = HTTPHeaders()
        for name, value in self.headers.items():
            headers[name] = value
        answer = botocore_stubber("before-send", AWSPreparedRequest("POST", url, headers, body, False))
        assert answer is not None, f"moto does not know {url}"
        self.answer(answer.status_code, answer.headers, answer.content)
