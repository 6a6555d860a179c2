"""Clients of the AWS services: created once, shared between threads, with the SDK's own retries turned off."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from fsd_inference.aws.bucket import StackBucket
from fsd_inference.aws.messaging import aws_endpoint, message_endpoint
from fsd_inference.aws.sdk import SDK_ERRORS, check_json, text_of, was_broken_off
from fsd_inference.aws.sessions import emulator_session, user_session
from fsd_inference.config import RetrySettings
from fsd_inference.endpoints import is_loopback, proxy_of
from fsd_inference.error_codes import DENIED, is_transient
from fsd_inference.errors import AsleepError, NotAllowedError, ResourceLimitError, SettingError, StackError
from fsd_inference.retrying import send
from fsd_inference.services import QueueClient, ServiceEndpoint, TopicClient
from fsd_inference.stack_description import StackSpec
from fsd_inference.store import Store
from fsd_inference.store.bucket import CredentialSource
from fsd_inference.usage import UsageMeter

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_sqs import SQSClient

    from fsd_inference.aws.billing import MetricsClient
    from fsd_inference.aws.price_list import PriceListClient

T = TypeVar("T")

_OPEN_FILES = 64
_CONNECT_S = 5.0
_ANSWER_S = 60.0  # read timeout in seconds; a long poll is answered within 20 s
_STALL_S = 120.0  # a slow line empties the system's send buffer of some MB within this time
_ASLEEP_CODES = frozenset({"CodeArtifactUserPendingException", "ResourceNotReadyException"})
_ASLEEP_STATES = ("state: Pending", "state: Inactive")
"""What the message of a ResourceConflictException has when an invocation is rejected because the function sleeps."""
_EXPIRED = "the credentials have expired; sign in again"
_HINTS = {
    "ResourceNotFoundException": "it does not exist; run fsd stack check",
    "TooManyRequestsException": "the concurrency of the account or the function is used up; wait, or ask AWS for more",
    "ResourceConflictException": "it is being updated; try again in a minute",
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "UnrecognizedClientException": "the service does not know the credentials; check AWS_PROFILE and the region",
    "InvalidClientTokenId": "the service does not know the credentials; check AWS_PROFILE and the region",
}


class Clients:
    """One client per AWS service, created on first use; safe to share between threads.

    Parameters
    ----------
    endpoint_url : str, optional
        Endpoint to use instead of AWS's own.
    region : str, optional
        AWS region; found as the AWS SDKs do (AWS_REGION, AWS_DEFAULT_REGION, the profile) if not given.
    emulated : bool, optional
        Whether the endpoint is an emulator that this package started: requests are then signed with fixed keys, and the
        user's AWS configuration is not read.
    connections : int, optional
        Size of each client's connection pool; at least the number of threads that use it.

    Raises
    ------
    SettingError
        No region is set, or the user's AWS configuration is invalid.
    ResourceLimitError
        The process's limit of open files is too low.
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
        is_local = endpoint_url is not None and is_loopback(endpoint_url)
        self._session = emulator_session(region) if emulated else user_session(region, is_local=is_local)
        self.region = self._session.region
        self._connections = connections
        self._lock = threading.Lock()
        self._clients: dict[str, Any] = {}
        self._topics: TopicClient | None = None
        self._queues: QueueClient | None = None

    @classmethod
    def of_stack(cls, stack: StackSpec, *, connections: int = 32) -> Self:
        """Create the clients of a stack, at the endpoint and region of its description, not of the environment."""
        return cls(stack.endpoint_url, stack.region, emulated=stack.emulator is not None, connections=connections)

    @classmethod
    def of_function(cls, *, connections: int = 32) -> Self:
        """Create the clients of a Lambda function; AWS_ENDPOINT_URL is set if the function runs on an emulator."""
        return cls(os.environ.get("AWS_ENDPOINT_URL"), connections=connections)

    @property
    def sns(self) -> SNSClient:
        """The SNS client, for managing topics; use `topics` to publish a run's messages."""
        client: SNSClient = self._client("sns")
        return client

    @property
    def sqs(self) -> SQSClient:
        """The SQS client, for managing queues; use `queues` to receive a run's messages."""
        client: SQSClient = self._client("sqs")
        return client

    @property
    def topics(self) -> TopicClient:
        """The client that publishes a run's messages; it does not use boto3."""
        with self._lock:
            if self._topics is None:
                self._topics = TopicClient(self._message_endpoint("sns"))
            return self._topics

    @property
    def queues(self) -> QueueClient:
        """The client that receives and deletes a run's messages; it does not use boto3."""
        with self._lock:
            if self._queues is None:
                self._queues = QueueClient(self._message_endpoint("sqs"))
            return self._queues

    @property
    def s3(self) -> S3Client:
        """The S3 client, for managing buckets; use `open_bucket` for objects."""
        client: S3Client = self._client("s3")
        return client

    @property
    def functions(self) -> LambdaClient:
        """The Lambda client, with the usual timeout; not for synchronous invocations, which take longer."""
        client: LambdaClient = self._client("lambda")
        return client

    def functions_answering_within(self, seconds: float) -> LambdaClient:
        """Return a new Lambda client with a read timeout of `seconds`, for synchronous calls; the caller closes it."""
        with self._lock:
            client: LambdaClient = self._make("lambda", seconds)
            return client

    @property
    def pricing(self) -> PriceListClient:
        """The client of the AWS Price List API, which is available in few regions."""
        client: PriceListClient = self._client("pricing")
        return client

    @property
    def metrics(self) -> MetricsClient:
        """The CloudWatch client, for reading what AWS counted."""
        client: MetricsClient = self._client("cloudwatch")
        return client

    @property
    def uploads(self) -> S3Client:
        """The S3 client that sends the content of files, which may take any time as long as it does not stall."""
        # urllib3 applies the connection timeout to each block of a file that it sends.
        client: S3Client = self._client("s3", kept_as="uploads", answer_s=_STALL_S, connect_s=_STALL_S)
        return client

    def open_bucket(
        self,
        bucket: str,
        folder: str = "",
        *,
        owner: str | None = None,
        meter: UsageMeter | None = None,
        retry: RetrySettings | None = None,
    ) -> Store:
        """Open a bucket, or a folder of it, as a store with the clients' endpoint, region, credentials and trust.

        With `owner`, requests are refused unless that AWS account owns the bucket; see `S3Store`.
        """
        return StackBucket(
            bucket,
            folder,
            uploads=lambda: self.uploads,
            endpoint_url=self.endpoint_url,
            region=self.region,
            credentials=self.credentials,
            ca_bundle=self._session.ca_bundle,
            owner=owner,
            meter=meter,
            retry=retry,
        )

    @property
    def credentials(self) -> CredentialSource:
        """The access keys, or a callable that returns the current ones; raises `SettingError` if there are none."""
        if self._session.credentials is None:
            raise SettingError("no AWS credentials are set: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and its secret")
        return self._session.credentials

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()
            self._topics = self._queues = None

    def _client(
        self, service: str, *, kept_as: str | None = None, answer_s: float = _ANSWER_S, connect_s: float = _CONNECT_S
    ) -> Any:
        name = kept_as or service
        with self._lock:  # boto3 clients are thread-safe, boto3 sessions are not
            if name not in self._clients:
                self._clients[name] = self._make(service, answer_s, connect_s)
            return self._clients[name]

    def _message_endpoint(self, service: Literal["sns", "sqs"]) -> ServiceEndpoint:
        return message_endpoint(
            self._session,
            service,
            self.endpoint_url,
            self.credentials,
            connections=self._connections,
            connect_timeout_s=_CONNECT_S,
            answer_timeout_s=_ANSWER_S,
        )

    def _make(self, service: str, answer_s: float, connect_s: float = _CONNECT_S) -> Any:
        _ = self.credentials  # missing credentials fail here, once, rather than in every request
        config = Config(  # type: ignore[call-arg] # the stubs lack ignore_configured_endpoint_urls
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=self._connections,
            connect_timeout=connect_s,
            read_timeout=answer_s,
            tcp_keepalive=True,
            ignore_configured_endpoint_urls=True,  # such as AWS_ENDPOINT_URL_SQS: the stack's description decides
        )
        if self.endpoint_url is not None:  # it has neither FIPS nor dual-stack variants, nor host names BUCKET.HOST
            config = config.merge(
                Config(use_fips_endpoint=False, use_dualstack_endpoint=False, s3={"addressing_style": "path"})
            )
        url = self.endpoint_url or aws_endpoint(self._session, service)
        proxy = proxy_of(url)
        config = config.merge(Config(proxies={} if proxy is None else {urlsplit(url).scheme: proxy}))
        try:
            make: Callable[..., Any] = self._session.boto3.client  # its overloads require a literal service name
            client = make(service, endpoint_url=self.endpoint_url, config=config)
        except (BotoCoreError, ValueError) as error:
            raise SettingError(f"cannot create a {service} client for {self.endpoint_url or 'AWS'}: {error}") from error
        client.meta.events.register(f"before-parse.{service}", check_json)
        return client


def _check_open_files() -> None:
    """Raise `ResourceLimitError` if the limit of open files would leave clients waiting for connections."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < _OPEN_FILES:
        raise ResourceLimitError(
            f"this process may open {limit} files, and AWS clients need up to {_OPEN_FILES}: "
            f"raise the limit with ulimit -n {_OPEN_FILES}"
        )


def request(
    kind: str, what: str, call: Callable[[], T], *, meter: UsageMeter, retry: RetrySettings, action: str = ""
) -> T:
    """Send one control request to a service of a stack, and retry it after transient failures.

    Parameters
    ----------
    kind : str
        Name under which `meter` counts the request, for example ``"sqs.purge"``.
    what : str
        The operation and its object, for error messages.
    call : callable
        Sends the request once.
    meter, retry : UsageMeter, RetrySettings
    action : str, optional
        IAM action of the operation, for the message if it is denied.

    Raises
    ------
    StackError
        The service refused the request, or did not answer any of the attempts.
    NotAllowedError
        A policy does not allow the request.
    """

    def classify(error: Exception, _: bool) -> StackError:
        if isinstance(error, ClientError):
            return refusal(what, error, action)
        return StackError(f"cannot {what}: {text_of(error)}", retryable=was_broken_off(error))

    return send(kind, call, meter=meter, retry=retry, errors=SDK_ERRORS, classify=classify)


def refusal(what: str, error: ClientError, action: str = "") -> StackError:
    """Return the exception for a service's error response.

    `NotAllowedError` if access was denied, `AsleepError` if an invoked function sleeps (not retryable within seconds,
    which is what the retries of `request` are for), otherwise `StackError`.
    """
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    text = error.response.get("Error", {}).get("Message", "")
    message = f"cannot {what}: the service answered {status} {code} ({text})"
    if code in DENIED:
        return NotAllowedError(f"{message}; the caller's policy must allow {action}" if action else message)
    if code in _ASLEEP_CODES or (
        code == "ResourceConflictException" and any(state in text for state in _ASLEEP_STATES)
    ):
        return AsleepError(f"{message}; it was unused for weeks: try again in two minutes", retryable=False)
    if code in _HINTS:
        message += f"; {_HINTS[code]}"
    return StackError(message, retryable=is_transient(status, code))
