"""Clients of the AWS services: made once and shared by threads, with the SDK's own retries off."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnectionError
from botocore.parsers import ResponseParserError

from fsd_inference.config import RetrySettings
from fsd_inference.errors import SettingError, StackError
from fsd_inference.records import StackSpec, UsageMeter
from fsd_inference.store import Store, open_store
from fsd_inference.store.s3 import Credentials

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_sqs import SQSClient

    from fsd_inference.aws.price_list import PriceListClient

T = TypeVar("T")

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_EMULATOR_REGION = "us-east-1"
_EMULATOR_CREDENTIALS = Credentials("test", "test")
_TRANSIENT_CODES = frozenset(
    {"Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestTimeout", "SlowDown"}
    | {"TooManyRequestsException", "InternalError", "InternalFailure", "ServiceUnavailable", "OperationAborted"}
)
_BROKEN_OFF = (NoConnectionError, HTTPClientError, ResponseParserError)  # the last: a body that was cut short


class Clients:
    """One client a service, made when first asked for; safe to share between threads.

    Parameters
    ----------
    endpoint_url : str, optional
        Another endpoint than AWS's own; AWS_ENDPOINT_URL if not given.
    region : str, optional
        As the AWS SDKs find it (AWS_REGION, AWS_DEFAULT_REGION, the profile) if not given.
    connections : int, optional
        Connections each client keeps open: at least the number of threads that use it.

    Raises
    ------
    SettingError
        There is no region.
    """

    def __init__(self, endpoint_url: str | None = None, region: str | None = None, *, connections: int = 32) -> None:
        self.endpoint_url = endpoint_url or os.environ.get("AWS_ENDPOINT_URL")
        self._is_local = self.endpoint_url is not None and urlsplit(self.endpoint_url).hostname in _LOOPBACK
        core = botocore.session.Session()
        if self._is_local:
            # An emulator needs no role of this machine, and asking for one costs seconds where there is none.
            core.get_component("credential_provider").remove("iam-role")
        self._session = boto3.Session(botocore_session=core, region_name=region or os.environ.get("AWS_REGION"))
        found = self._session.region_name or (_EMULATOR_REGION if self._is_local else None)
        if found is None:
            raise SettingError("no AWS region is set: give one, or set AWS_REGION")
        self.region: str = found
        self._config = Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=connections,
            connect_timeout=5,
            read_timeout=60,  # a long poll answers within 20 s
            tcp_keepalive=True,
        )
        self._lock = threading.Lock()
        self._clients: dict[str, Any] = {}

    @classmethod
    def of_stack(cls, stack: StackSpec, *, connections: int = 32) -> Self:
        """Make the clients of a stack."""
        return cls(stack.endpoint_url, stack.region, connections=connections)

    @property
    def sns(self) -> SNSClient:
        """The SNS client."""
        client: SNSClient = self._client("sns")
        return client

    @property
    def sqs(self) -> SQSClient:
        """The SQS client."""
        client: SQSClient = self._client("sqs")
        return client

    @property
    def s3(self) -> S3Client:
        """The S3 client, for buckets; objects go through `open_bucket`."""
        client: S3Client = self._client("s3")
        return client

    @property
    def functions(self) -> LambdaClient:
        """The Lambda client."""
        client: LambdaClient = self._client("lambda")
        return client

    @property
    def pricing(self) -> PriceListClient:
        """The client of the AWS Price List API, which answers in few regions."""
        client: PriceListClient = self._client("pricing")
        return client

    def open_bucket(
        self, bucket: str, folder: str = "", *, meter: UsageMeter | None = None, retry: RetrySettings | None = None
    ) -> Store:
        """Open (a folder of) a bucket as a store with the same endpoint, region and credentials."""
        return open_store(
            f"s3://{bucket}/{folder}",
            endpoint_url=self.endpoint_url,
            region=self.region,
            credentials=self.credentials(),
            meter=meter,
            retry=retry,
        )

    def credentials(self) -> Credentials:
        """Return the credentials as they are now; an emulator takes any, so it gets some if none are configured."""
        found = self._session.get_credentials()
        if found is None:
            if self._is_local:
                return _EMULATOR_CREDENTIALS
            raise SettingError("no AWS credentials are set: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and its secret")
        frozen = found.get_frozen_credentials()
        return Credentials(frozen.access_key or "", frozen.secret_key or "", frozen.token)

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    def _client(self, service: str) -> Any:
        with self._lock:  # clients may be shared by threads, the session that makes them may not
            if service not in self._clients:
                make: Callable[..., Any] = partial(self._session.client, service)
                if self.credentials() is _EMULATOR_CREDENTIALS:  # real ones are left to the SDK, which renews them
                    make = partial(make, aws_access_key_id="test", aws_secret_access_key="test")  # noqa: S106
                self._clients[service] = make(
                    endpoint_url=self.endpoint_url, region_name=self.region, config=self._config
                )
            return self._clients[service]


def request(kind: str, what: str, call: Callable[[], T], *, meter: UsageMeter, retry: RetrySettings) -> T:
    """Send one request of a stack's upkeep, again while that can help.

    Parameters
    ----------
    kind : str
        What `meter` counts, for example ``"sqs.purge"``.
    what : str
        The operation and its object, for messages.
    call : callable
        Sends it once.
    meter, retry : UsageMeter, RetrySettings

    Raises
    ------
    StackError
        The service refused, or did not answer in the attempts allowed.
    """
    is_repeat = False
    pauses = retry.pauses()
    while True:
        meter.request(kind, retry=is_repeat)
        try:
            return call()
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            is_transient = code in _TRANSIENT_CODES or status >= 500 or status == 429
            text = error.response.get("Error", {}).get("Message", "")
            failure = StackError(
                f"cannot {what}: the service answered {status} {code} ({text})", retryable=is_transient
            )
        except BotoCoreError as error:
            is_transient = isinstance(error, _BROKEN_OFF)
            failure = StackError(f"cannot {what}: {error}", retryable=is_transient)
        pause = next(pauses, None) if is_transient else None
        if pause is None:
            raise failure
        is_repeat = True
        time.sleep(pause)
