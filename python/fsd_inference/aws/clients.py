"""Clients of the AWS services: made once and shared by threads, with the SDK's own retries off."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TypeVar

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from fsd_inference.aws.sessions import emulator_session, user_session
from fsd_inference.channels.sdk import SDK_ERRORS, check_json, text_of, was_broken_off
from fsd_inference.config import RetrySettings
from fsd_inference.endpoints import is_loopback
from fsd_inference.errors import NotAllowedError, ResourceLimitError, SettingError, StackError
from fsd_inference.retrying import send
from fsd_inference.stack_description import StackSpec
from fsd_inference.store import Store, open_store
from fsd_inference.store.bucket import CredentialSource
from fsd_inference.usage import UsageMeter

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_sqs import SQSClient

    from fsd_inference.aws.price_list import PriceListClient

T = TypeVar("T")

_OPEN_FILES = 64
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


class Clients:
    """One client a service, made when first asked for; safe to share between threads.

    Parameters
    ----------
    endpoint_url : str, optional
        Another endpoint than AWS's own.
    region : str, optional
        As the AWS SDKs find it (AWS_REGION, AWS_DEFAULT_REGION, the profile) if not given.
    emulated : bool, optional
        The endpoint is an emulator that was started here: it gets fixed keys, and nothing of the user's AWS
        configuration is read.
    connections : int, optional
        Connections each client keeps open: at least the number of threads that use it.

    Raises
    ------
    SettingError
        There is no region, or the user's AWS configuration cannot be used.
    ResourceLimitError
        The process may have too few open files.
    """

    def __init__(
        self,
        endpoint_url: str | None = None,
        region: str | None = None,
        *,
        emulated: bool = False,
        connections: int = 32,
    ) -> None:
        _check_open_files()
        self.endpoint_url = endpoint_url
        self._is_local = endpoint_url is not None and is_loopback(endpoint_url)
        self._session = emulator_session(region) if emulated else user_session(region, is_local=self._is_local)
        self.region = self._session.region
        self._connections = connections
        self._lock = threading.Lock()
        self._clients: dict[str, Any] = {}

    @classmethod
    def of_stack(cls, stack: StackSpec, *, connections: int = 32) -> Self:
        """Make the clients of a stack, whose description says where it is: no variable of the environment does."""
        return cls(stack.endpoint_url, stack.region, emulated=stack.emulator is not None, connections=connections)

    @classmethod
    def of_function(cls, *, connections: int = 32) -> Self:
        """Make the clients of a Lambda function; where AWS is emulated, its AWS_ENDPOINT_URL says where."""
        return cls(os.environ.get("AWS_ENDPOINT_URL"), connections=connections)

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
            credentials=self.credentials,
            ca_bundle=self._session.ca_bundle,
            meter=meter,
            retry=retry,
        )

    @property
    def credentials(self) -> CredentialSource:
        """What signs the requests: keys, or what returns the valid ones; `SettingError` if there are none."""
        if self._session.credentials is None:
            raise SettingError("no AWS credentials are set: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and its secret")
        return self._session.credentials

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
        _ = self.credentials  # whoever has none is told here, and not by each request
        config = Config(  # type: ignore[call-arg] # the stubs lack ignore_configured_endpoint_urls
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=self._connections,
            connect_timeout=5,
            read_timeout=answer_s,
            tcp_keepalive=True,
            ignore_configured_endpoint_urls=True,  # AWS_ENDPOINT_URL_SQS and its like: the stack decides
        )
        if self.endpoint_url is not None:  # of which there are no variants, nor names BUCKET.HOST
            config = config.merge(
                Config(use_fips_endpoint=False, use_dualstack_endpoint=False, s3={"addressing_style": "path"})
            )
        if self._is_local:
            config = config.merge(Config(proxies={}))
        try:
            make: Callable[..., Any] = self._session.boto3.client  # its overloads want a literal name
            client = make(service, endpoint_url=self.endpoint_url, config=config)
        except (BotoCoreError, ValueError) as error:
            raise SettingError(f"no {service} client can be made for {self.endpoint_url or 'AWS'}: {error}") from error
        client.meta.events.register(f"before-parse.{service}", check_json)
        return client


def _check_open_files() -> None:
    """Raise `ResourceLimitError` where clients would wait for connections that cannot be opened."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < _OPEN_FILES:
        raise ResourceLimitError(
            f"a process may have {limit} open files, and clients of AWS need up to {_OPEN_FILES}: "
            f"raise that with ulimit -n {_OPEN_FILES}"
        )


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

    def classify(error: Exception, _: bool) -> StackError:
        if isinstance(error, ClientError):
            return refusal(what, error, action)
        return StackError(f"cannot {what}: {text_of(error)}", retryable=was_broken_off(error))

    return send(kind, call, meter=meter, retry=retry, errors=SDK_ERRORS, classify=classify)


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
