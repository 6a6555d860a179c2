"""Creation and deletion of a stack's topics, queues and buckets, on AWS or on an emulator."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from fsd_inference.aws.clients import Clients, request
from fsd_inference.config import RetrySettings
from fsd_inference.endpoints import is_plain
from fsd_inference.errors import FsdError, SettingError, StackError
from fsd_inference.limits import (
    LARGEST_MESSAGE_BYTES,
    LEAST_MESSAGE_BYTES,
    MESSAGE_BYTES,
    MESSAGE_MARGIN_S,
    RANKS_PER_TOPIC,
)
from fsd_inference.stack_description import EmulatorInfo, LaneSpec, StackSpec, message_lifetime_s
from fsd_inference.threads import ThreadPool
from fsd_inference.usage import UsageMeter

if TYPE_CHECKING:
    from mypy_boto3_sns.type_defs import CreateTopicResponseTypeDef
    from mypy_boto3_sqs.literals import QueueAttributeNameType

T = TypeVar("T")

_THREADS = 16
_RETRY = RetrySettings(attempts=8, base_s=0.2, cap_s=10.0)
_NAME = re.compile(r"[a-z][a-z0-9-]{1,30}[a-z0-9]")
_LONGEST_HIDING_S = 43_200  # SQS's longest VisibilityTimeout
_PUSH_DAYS = 7  # within which `fsd push` continues an upload that was broken off


@dataclass(frozen=True, slots=True)
class StackSettings:
    """Settings of a stack to create.

    Attributes
    ----------
    name : str
        Prefix of all resource names: 3 to 32 characters of a-z, 0-9 and '-'.
    lanes : int
        Maximum number of concurrent runs over queues.
    ranks : int
        Maximum number of workers of each such run.
    run_buckets : int
        Number of run buckets; more buckets serve more requests per second.
    message_bytes : int or None
        Largest message in bytes. None: 1 MiB on AWS, and 256 KiB at an endpoint URL, because emulators store the
        topics' MaximumMessageSize and do not heed it. If the service refuses to raise it, the stack has 256 KiB.
    longest_run_s : float
        Longest run in seconds; the queues' visibility timeout and retention exceed it.
    purge_settle_s : float
        See `StackSpec`.
    expire_days : int
        Days after which objects in the run buckets are deleted.
    """

    name: str
    lanes: int = 1
    ranks: int = 8
    run_buckets: int = 1
    message_bytes: int | None = None
    longest_run_s: float = 900.0
    purge_settle_s: float = 60.0
    expire_days: int = 1

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise SettingError(
                f"stack name {self.name!r} must be 3 to 32 of a-z, 0-9 and '-', with a letter first and no '-' last"
            )
        for name in ("lanes", "ranks", "run_buckets", "expire_days"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} must be at least 1, not {getattr(self, name)}")
        least, most = LEAST_MESSAGE_BYTES, LARGEST_MESSAGE_BYTES
        if self.message_bytes is not None and not least <= self.message_bytes <= most:
            raise SettingError(f"message_bytes must be from {least} to {most}, not {self.message_bytes}")
        if not 0 < self.longest_run_s <= _LONGEST_HIDING_S - MESSAGE_MARGIN_S:
            raise SettingError(
                f"longest_run_s must be more than 0 and at most {_LONGEST_HIDING_S - MESSAGE_MARGIN_S}, the longest "
                f"visibility timeout of queues less a margin, not {self.longest_run_s:g}"
            )


@dataclass(slots=True)
class _Made:
    """The resources created so far, which are deleted again if a later one cannot be created."""

    topic_arns: list[str] = field(default_factory=list)
    queue_urls: list[str] = field(default_factory=list)
    buckets: list[str] = field(default_factory=list)
    account: str | None = None


def create_stack(
    clients: Clients,
    settings: StackSettings,
    *,
    emulator: EmulatorInfo | None = None,
    meter: UsageMeter | None = None,
) -> StackSpec:
    """Create all resources of a stack and return their description.

    A random suffix is added to the stack's name to keep it apart from other stacks: bucket names are global, and the
    names of deleted queues are blocked for a minute.

    Parameters
    ----------
    clients : Clients
    settings : StackSettings
    emulator : EmulatorInfo, optional
        The emulator to record in the description, so that deleting the stack stops it.
    meter : UsageMeter, optional
        Counts the requests: 1 per topic (2 where large messages are refused), 2 per queue, 5 per bucket (4 over plain
        http, without a policy for TLS).

    Raises
    ------
    StackError
        A resource could not be created; those already created are deleted again.
    """
    work = _Provision(clients, settings, meter or UsageMeter())
    blocks = math.ceil(settings.ranks / RANKS_PER_TOPIC)
    run_buckets = [f"{work.name}-runs-{index}" for index in range(settings.run_buckets)]
    network_bucket = f"{work.name}-networks"
    buckets = [(name, settings.expire_days) for name in run_buckets] + [(network_bucket, None)]
    with ThreadPool(_THREADS) as threads:
        try:
            _all(threads, work.bucket, buckets)
            pairs = [(lane, block) for lane in range(settings.lanes) for block in range(blocks)]
            topics = _all(threads, work.topic, pairs)
            arns = dict(zip(pairs, topics, strict=True))
            places = [(lane, rank) for lane in range(settings.lanes) for rank in range(settings.ranks)]
            subscriptions = [(lane, rank, arns[lane, rank // RANKS_PER_TOPIC]) for lane, rank in places]
            urls = _all(threads, work.queue, subscriptions)
        except BaseException:
            _delete(clients, work.made, work.meter, threads)
            raise
    return StackSpec(
        name=work.name,
        endpoint_url=clients.endpoint_url,
        region=clients.region,
        lanes=tuple(
            LaneSpec(
                tuple(topics[lane * blocks : (lane + 1) * blocks]),
                tuple(urls[lane * settings.ranks : (lane + 1) * settings.ranks]),
            )
            for lane in range(settings.lanes)
        ),
        run_buckets=tuple(run_buckets),
        network_bucket=network_bucket,
        message_bytes=work.message_bytes,
        longest_run_s=settings.longest_run_s,
        purge_settle_s=settings.purge_settle_s,
        emulator=emulator,
    )


def delete_stack(clients: Clients, stack: StackSpec, *, meter: UsageMeter | None = None) -> None:
    """Delete all resources of a stack and all objects in its buckets; absent ones are ignored.

    Raises
    ------
    StackError
        A resource could not be deleted; deletion of all others was attempted.
    """
    made = _Made(
        [arn for lane in stack.lanes for arn in lane.topic_arns],
        [url for lane in stack.lanes for url in lane.queue_urls],
        [*stack.run_buckets, stack.network_bucket],
        stack.account,
    )
    with ThreadPool(_THREADS) as threads:
        failures = _delete(clients, made, meter or UsageMeter(), threads)
    if failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise StackError(f"stack {stack.name} was not deleted completely: {failures[0]}{more}", retryable=True)


class _Provision:
    """The creation of one stack's resources; `made` records those created so far.

    `message_bytes` is the largest message that all topics created so far take.
    """

    def __init__(self, clients: Clients, settings: StackSettings, meter: UsageMeter) -> None:
        self.clients = clients
        self.settings = settings
        self.message_bytes = settings.message_bytes or (
            LARGEST_MESSAGE_BYTES if clients.endpoint_url is None else MESSAGE_BYTES
        )
        self.name = f"{settings.name}-{uuid4().hex[:8]}"
        self.meter = meter
        self.made = _Made()

    def topic(self, lane: int, block: int) -> str:
        name = f"{self.name}-lane{lane}-block{block}"
        what = f"create topic {name}"
        answer = None
        if self.message_bytes > MESSAGE_BYTES:
            answer = self._request("sns.manage", what, lambda: self._large_topic(name, self.message_bytes))
        if answer is None:
            self.message_bytes = min(self.message_bytes, MESSAGE_BYTES)
            answer = self._request("sns.manage", what, lambda: self.clients.sns.create_topic(Name=name))
        self.made.topic_arns.append(answer["TopicArn"])
        return answer["TopicArn"]

    def _large_topic(self, name: str, message_bytes: int) -> CreateTopicResponseTypeDef | None:
        """Create a topic that takes larger messages than usual, or return None if the service refuses the attribute."""
        attributes = {"MaximumMessageSize": str(message_bytes)}
        try:
            return self.clients.sns.create_topic(Name=name, Attributes=attributes)
        except self.clients.sns.exceptions.InvalidParameterException:
            return None

    def queue(self, lane: int, rank: int, topic_arn: str) -> str:
        """Create a rank's queue and subscribe it to the topic's messages for that rank and for all ranks."""
        name = f"{self.name}-lane{lane}-rank{rank}"
        _, partition, _, region, account, _ = topic_arn.split(":")
        arn = f"arn:{partition}:sqs:{region}:{account}:{name}"
        lifetime_s = str(message_lifetime_s(self.settings.longest_run_s))
        attributes: dict[QueueAttributeNameType, str] = {
            "MessageRetentionPeriod": lifetime_s,
            "VisibilityTimeout": lifetime_s,
            "MaximumMessageSize": str(max(self.message_bytes, MESSAGE_BYTES)),
            "SqsManagedSseEnabled": "true",
            "Policy": json.dumps(_queue_policy(arn, topic_arn)),
        }
        made = self._request(
            "sqs.manage",
            f"create queue {name}",
            lambda: self.clients.sqs.create_queue(QueueName=name, Attributes=attributes),
        )
        url = made["QueueUrl"]
        self.made.queue_urls.append(url)
        subscription = {
            "RawMessageDelivery": "true",
            "FilterPolicyScope": "MessageAttributes",
            "FilterPolicy": json.dumps({"to": [str(rank), "all"]}),
        }
        self._request(
            "sns.manage",
            f"subscribe queue {name}",
            lambda: self.clients.sns.subscribe(
                TopicArn=topic_arn, Protocol="sqs", Endpoint=arn, Attributes=subscription
            ),
        )
        return url

    def bucket(self, name: str, expire_days: int | None) -> None:
        region = self.clients.region
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        self._request(
            "s3.manage",
            f"create bucket {name}",
            lambda: self.clients.s3.create_bucket(Bucket=name, **where),  # type: ignore[arg-type]
        )
        self.made.buckets.append(name)
        expire = {
            "ID": "expire",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": _PUSH_DAYS if expire_days is None else 1},
        }
        if expire_days is not None:
            expire["Expiration"] = {"Days": expire_days}
        private = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
        encryption = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}
        policy = bucket_policy(f"arn:{self.clients.sns.meta.partition}:s3:::{name}")
        s3: Any = self.clients.s3  # its type stubs require literals
        settings: dict[str, Callable[[], object]] = {
            "lifecycle": lambda: s3.put_bucket_lifecycle_configuration(
                Bucket=name, LifecycleConfiguration={"Rules": [expire]}
            ),
            "public access block": lambda: s3.put_public_access_block(
                Bucket=name, PublicAccessBlockConfiguration=dict.fromkeys(private, True)
            ),
            "encryption": lambda: s3.put_bucket_encryption(
                Bucket=name, ServerSideEncryptionConfiguration={"Rules": [encryption]}
            ),
        }
        if not is_plain(s3.meta.endpoint_url):  # over plain http the policy would deny every request
            settings["policy"] = lambda: s3.put_bucket_policy(Bucket=name, Policy=json.dumps(policy))
        for what, call in settings.items():
            self._request("s3.manage", f"set the {what} of bucket {name}", call)

    def _request(self, kind: str, what: str, call: Callable[[], T]) -> T:
        return request(kind, what, call, meter=self.meter, retry=_RETRY)


def _queue_policy(queue_arn: str, topic_arn: str) -> dict[str, object]:
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "sns.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": queue_arn,
                "Condition": {"ArnEquals": {"aws:SourceArn": topic_arn}},
            }
        ],
    }


def bucket_policy(bucket_arn: str) -> dict[str, object]:
    """Return the bucket policy that denies requests without TLS."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "TlsOnly",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [bucket_arn, f"{bucket_arn}/*"],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ],
    }


def _delete(clients: Clients, made: _Made, meter: UsageMeter, threads: ThreadPool) -> list[FsdError]:
    """Delete the created resources as far as possible, and return the failures."""

    def topic(arn: str) -> None:
        what = f"delete topic {arn}"
        request("sns.manage", what, lambda: clients.sns.delete_topic(TopicArn=arn), meter=meter, retry=_RETRY)

    def queue(url: str) -> None:
        def call() -> None:
            with suppress(clients.sqs.exceptions.QueueDoesNotExist):
                clients.sqs.delete_queue(QueueUrl=url)

        request("sqs.manage", f"delete queue {url}", call, meter=meter, retry=_RETRY)

    def bucket(name: str) -> None:
        store = clients.open_bucket(name, owner=made.account, meter=meter, retry=_RETRY)
        try:
            store.delete(info.key for info in store.list(""))
        except FsdError as error:
            if "NoSuchBucket" in str(error):
                return
            raise
        finally:
            store.close()
        what, owner = f"delete bucket {name}", {} if made.account is None else {"ExpectedBucketOwner": made.account}
        request("s3.manage", what, lambda: clients.s3.delete_bucket(Bucket=name, **owner), meter=meter, retry=_RETRY)

    def attempt(job: tuple[Callable[[str], None], str]) -> FsdError | None:
        delete, name = job
        try:
            delete(name)
        except FsdError as error:
            return error
        return None

    jobs: list[tuple[Callable[[str], None], str]] = [(topic, arn) for arn in made.topic_arns]
    jobs += [(queue, url) for url in made.queue_urls]
    jobs += [(bucket, name) for name in made.buckets]
    return [failure for failure in threads.map(attempt, jobs) if failure is not None]


def _all(threads: ThreadPool, work: Callable[..., T], items: Sequence[tuple[object, ...]]) -> list[T]:
    """Call `work` with the arguments of each item in threads; wait for all calls before raising the first error."""
    futures = [threads.submit(work, *item) for item in items]
    wait(futures)
    return [future.result() for future in futures]
