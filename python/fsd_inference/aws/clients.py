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
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, ProfileNotFound
from botocore.exceptions import ConnectionError as NoConnectionError
from botocore.parsers import ResponseParserError

from fsd_inference.config import RetrySettings
from fsd_inference.errors import NotAllowedError, SettingError, StackError
from fsd_inference.records import StackSpec, UsageMeter
from fsd_inference.store import Store, open_store
from fsd_inference.store.s3 import Credentials, CredentialSource

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
_ANSWER_S = 60.0  # a long poll answers within 20 s
_TRANSIENT_CODES = frozenset(
    {"Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestTimeout", "SlowDown"}
    | {"TooManyRequestsException", "InternalError", "InternalFailure", "ServiceUnavailable", "OperationAborted"}
)
_DENIED_CODES = frozenset(
    {"AccessDenied", "AccessDeniedException", "AuthorizationError", "AuthorizationErrorException"}
    | {"UnauthorizedOperation", "KMSAccessDeniedException", "403"}  # the last: of a HEAD, which has no body
)
_EXPIRED = "the credentials have expired; sign in again"
_HINTS = {
    "ResourceNotFoundException": "it is not there; see fsd stack check",
    "TooManyRequestsException": "the concurrency of the account or the function is used up; wait, or ask AWS for more",
    "ResourceConflictException": "it is being updated; try again in a minute",
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "UnrecognizedClientException": "the credentials are not known there; see AWS_PROFILE and the region",
    "InvalidClientTokenId": "the credentials are not known there; see AWS_PROFILE and the region",
}
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
        There is no region, or no profile of the name that AWS_PROFILE gives.
    """

    def __init__(self, endpoint_url: str | None = None, region: str | None = None, *, connections: int = 32) -> None:
        self.endpoint_url = endpoint_url or os.environ.get("AWS_ENDPOINT_URL")
        self._is_local = self.endpoint_url is not None and urlsplit(self.endpoint_url).hostname in _LOOPBACK
        core = botocore.session.Session()
        try:
            if self._is_local:
                # An emulator needs no role of this machine, and asking for one costs seconds where there is none.
                core.get_component("credential_provider").remove("iam-role")
            self._session = boto3.Session(botocore_session=core, region_name=region or os.environ.get("AWS_REGION"))
            found = self._session.region_name or (_EMULATOR_REGION if self._is_local else None)
        except ProfileNotFound as error:
            raise SettingError(f"{error}: set AWS_PROFILE to one that your AWS configuration has") from error
        if found is None:
            raise SettingError("no AWS region is set: give one, or set AWS_REGION")
        self.region: str = found
        self._connections = connections
        self._ca_bundle: str | None = core.get_config_variable("ca_bundle")  # AWS_CA_BUNDLE, or the profile's
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
        """The Lambda client, for calls that are answered at once."""
        client: LambdaClient = self._client("lambda")
        return client

    def functions_answering_within(self, seconds: float) -> LambdaClient:
        """Return a Lambda client that waits so long for an answer; the caller closes it."""
        with self._lock:
            client: LambdaClient = self._make("lambda", seconds)
            return client

    @property
    def pricing(self) -> PriceListClient:
        """The client of the AWS Price List API, which answers in few regions."""
        client: PriceListClient = self._client("pricing")
        return client

    def open_bucket(
        self, bucket: str, folder: str = "", *, meter: UsageMeter | None = None, retry: RetrySettings | None = None
    ) -> Store:
        """Open (a folder of) a bucket as a store with the same endpoint, region, credentials and trust."""
        return open_store(
            f"s3://{bucket}/{folder}",
            endpoint_url=self.endpoint_url,
            region=self.region,
            credentials=self.credentials(),
            ca_bundle=self._ca_bundle,
            meter=meter,
            retry=retry,
        )

    def credentials(self) -> CredentialSource:
        """Return the credentials, which renew themselves; an emulator takes any, so it gets some if none are set."""
        found = self._session.get_credentials()
        if found is None:
            if self._is_local:
                return _EMULATOR_CREDENTIALS
            raise SettingError("no AWS credentials are set: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and its secret")

        def read() -> Credentials:
            frozen = found.get_frozen_credentials()
            return Credentials(frozen.access_key or "", frozen.secret_key or "", frozen.token)

        # Those of a role, a login or a process expire; botocore renews them when it is asked in time.
        return read if isinstance(found, RefreshableCredentials) else read()

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    def _client(self, service: str) -> Any:
        with self._lock:  # clients may be shared by threads, the session that makes them may not
            if service not in self._clients:
                self._clients[service] = self._make(service, _ANSWER_S)
            return self._clients[service]

    def _make(self, service: str, answer_s: float) -> Any:
        config = Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=self._connections,
            connect_timeout=5,
            read_timeout=answer_s,
            tcp_keepalive=True,
        )
        make: Callable[..., Any] = partial(self._session.client, service)
        if self.credentials() is _EMULATOR_CREDENTIALS:  # real ones are left to the SDK, which renews them
            make = partial(make, aws_access_key_id="test", aws_secret_access_key="test")  # noqa: S106
        return make(endpoint_url=self.endpoint_url, region_name=self.region, config=config)


def request(
    kind: str, what: str, call: Callable[[], T], *, meter: UsageMeter, retry: RetrySettings, action: str = ""
) -> T:
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
    action : str, optional
        What IAM calls the operation, for the message where it is not allowed.

    Raises
    ------
    StackError
        The service refused, or did not answer in the attempts allowed.
    NotAllowedError
        A policy does not allow it.
    """
    is_repeat = False
    pauses = retry.pauses()
    while True:
        meter.request(kind, retry=is_repeat)
        try:
            return call()
        except ClientError as error:
            failure = refusal(what, error, action)
        except BotoCoreError as error:
            failure = StackError(f"cannot {what}: {error}", retryable=isinstance(error, _BROKEN_OFF))
        pause = next(pauses, None) if failure.retryable else None
        if pause is None:
            raise failure
        is_repeat = True
        time.sleep(pause)


def refusal(what: str, error: ClientError, action: str = "") -> StackError:
    """Return what a service's answer means: see `request`."""
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    text = error.response.get("Error", {}).get("Message", "")
    message = f"cannot {what}: the service answered {status} {code} ({text})"
    if code in _DENIED_CODES:
        return NotAllowedError(f"{message}; the caller's policy must allow {action}" if action else message)
    if code in _HINTS:
        message += f"; {_HINTS[code]}"
    return StackError(message, retryable=code in _TRANSIENT_CODES or status >= 500 or status == 429)
