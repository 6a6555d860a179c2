"""The channel over SNS and SQS: topics that fan out to one filtered queue per rank.

A lane has one topic per block of `RANKS_PER_TOPIC` ranks, and one queue per rank, which is subscribed to its block's
topic with raw delivery and the filter ``{"to": ["<rank>", "all"]}``. A message's body is the frame in URL-safe base64
without padding (SNS percent-encodes bodies, SQS accepts text only); its attribute ``to`` lists the target ranks. By
default messages are not deleted: the lane is purged after the run, and the queues' visibility timeout outlasts the run.
"""

from __future__ import annotations

import binascii
import contextlib
import json
import math
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import ClientError

from fsd_inference.channels.base import Channel, Expected, Frame, Limits
from fsd_inference.channels.sdk import SDK_ERRORS, text_of, was_broken_off
from fsd_inference.channels.sending import Joined, check_frames, check_limits, closed_error, done
from fsd_inference.config import RetrySettings
from fsd_inference.errors import ChannelError, SettingError
from fsd_inference.limits import (
    BATCH_ENTRIES,
    LARGEST_MESSAGE_BYTES,
    LEAST_MESSAGE_BYTES,
    MESSAGE_BYTES,
    RANKS_PER_TOPIC,
    SENDERS,
    TARGETS_ATTRIBUTE_BYTES,
    UNIT_BYTES,
)
from fsd_inference.packing import first_fit
from fsd_inference.retrying import send
from fsd_inference.threads import ThreadPool
from fsd_inference.usage import EACH_MESSAGE, UsageMeter

if TYPE_CHECKING:
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_sns.type_defs import PublishBatchRequestEntryTypeDef
    from mypy_boto3_sqs import SQSClient

T = TypeVar("T")
Entry = TypeVar("Entry", bound=Mapping[str, Any])

ALL = "all"
"""Value of the attribute `to` of a message for every rank of the block."""

_LONGEST_WAIT_S = 20  # WaitTimeSeconds (SQS API)
_THROTTLED = frozenset(
    {
        "OverLimit",
        "RequestLimitExceeded",
        "RequestThrottled",
        "SlowDown",
        "Throttled",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_FROM_URL_SAFE = str.maketrans("-_", "+/")


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """The settings of the queue channel.

    Attributes
    ----------
    message_bytes : int
        Maximum bytes of a message, and of all messages of a batch, including attributes: 256 KiB on AWS (SNS quotas,
        2026-11), up to 1 MiB on topics whose MaximumMessageSize is raised.
    senders : int
        Maximum concurrent publish requests; the clients' connection pools need as many connections, and one more for
        each receiving thread.
    delete : bool
        Whether to delete messages in batches as they are received, for stacks whose lanes are reused at once.
    retry : RetrySettings
        Retries of throttled, failed and interrupted requests.
    """

    message_bytes: int = MESSAGE_BYTES
    senders: int = SENDERS
    delete: bool = False
    retry: RetrySettings = field(default_factory=RetrySettings)

    def __post_init__(self) -> None:
        least, most = LEAST_MESSAGE_BYTES, LARGEST_MESSAGE_BYTES
        if not least <= self.message_bytes <= most:
            raise SettingError(f"message_bytes must be {least} to {most}, not {self.message_bytes}")
        if self.senders < 1:
            raise SettingError(f"senders must be at least 1, not {self.senders}")


class QueueChannel(Channel):
    """One rank's channel over a lane of topics and queues.

    Parameters
    ----------
    sns, sqs : boto3 clients
        Clients with the SDK's retries off (``Config(retries={"total_max_attempts": 1})``); the caller closes them.
    topics : sequence of str
        ARN of each block's topic: ranks 0..99, 100..199, and so on.
    queue_url : str
        URL of this rank's queue.
    workers : int
        P.
    settings : QueueSettings, optional
        Sizes, concurrency and retries.

    Raises
    ------
    SettingError
        A client has its own retries on, or the number of topics does not match P.
    """

    def __init__(
        self,
        sns: SNSClient,
        sqs: SQSClient,
        *,
        topics: Sequence[str],
        queue_url: str,
        workers: int,
        settings: QueueSettings | None = None,
    ) -> None:
        for client in (sns, sqs):
            _check_retries_are_off(client)
        if len(topics) != math.ceil(workers / RANKS_PER_TOPIC):
            raise SettingError(
                f"{workers} workers need {math.ceil(workers / RANKS_PER_TOPIC)} topics, one per block of "
                f"{RANKS_PER_TOPIC} ranks, not {len(topics)}"
            )
        self._settings = settings or QueueSettings()
        frame_bytes = (self._settings.message_bytes - TARGETS_ATTRIBUTE_BYTES) * 3 // 4
        self.limits = Limits(frame_bytes, BATCH_ENTRIES, frame_bytes)
        self.meter = UsageMeter()
        self._sns = sns
        self._sqs = sqs
        self._topics = tuple(topics)
        self._queue_url = queue_url
        self._workers = workers
        self._closed = threading.Event()
        self._senders = ThreadPool(self._settings.senders, thread_name_prefix="queue-sender")

    # --- the contract ------------------------------------------------------------------------------------------------

    def send(self, frames: Sequence[Frame]) -> Future[None]:
        if self._closed.is_set():
            raise closed_error()
        check_frames(frames, self.limits, self._workers)
        by_block: defaultdict[int, list[_Message]] = defaultdict(list)
        for frame in frames:
            body = encode(frame.body)
            for block, targets in _by_block(frame.targets).items():
                by_block[block].append(_Message(body, targets))
            self.meter.sent(frames=1, wire_bytes=len(frame.body), body_bytes=len(body))
        batches = [
            (self._topics[block], batch)
            for block, messages in by_block.items()
            for batch in pack(messages, self._settings.message_bytes)
        ]
        if not batches:
            return done()
        joined = Joined(len(batches))
        for topic, batch in batches:
            self._submit(topic, batch, joined)
        return joined.future

    def receive(self, expected: Sequence[Expected], timeout_s: float) -> list[bytes]:
        """Return up to 10 bodies by long polling; `timeout_s` is rounded up to whole seconds, 20 at most.

        If nothing is expected there is no request, as it would be billed. If a response is lost, its messages stay
        hidden for the queue's visibility timeout; the stall timeout then ends the run.
        """
        if self._closed.is_set():
            raise closed_error()
        if not expected:
            self._closed.wait(timeout_s)
            return []
        answer = self._request(
            "sqs.receive",
            f"receive from {self._queue_url}",
            lambda: self._sqs.receive_message(
                QueueUrl=self._queue_url,
                MaxNumberOfMessages=BATCH_ENTRIES,
                WaitTimeSeconds=min(_LONGEST_WAIT_S, math.ceil(max(0.0, timeout_s))),
            ),
        )
        messages = answer.get("Messages", [])
        if not messages:
            self.meter.empty_poll()
            return []
        size = sum(len(message["Body"]) for message in messages)
        self.meter.received(size)
        self.meter.more_units("sqs.receive", _units(size) - 1)
        if self._settings.delete:
            self._delete([message["ReceiptHandle"] for message in messages])
        return [decode(message["Body"]) for message in messages]

    def abort(self, frame: Frame) -> None:
        if self._closed.is_set():
            raise closed_error()
        check_limits([frame], self.limits)
        message = _Message(encode(frame.body), (ALL,))
        self.meter.sent(frames=1, wire_bytes=len(frame.body), body_bytes=len(message.body))
        for topic in self._topics:
            self._publish(topic, [message])

    def close(self) -> None:
        self._closed.set()
        self._senders.shutdown(wait=True, cancel_futures=True)

    # --- requests ----------------------------------------------------------------------------------------------------

    def _submit(self, topic: str, batch: list[_Message], joined: Joined) -> None:
        def ended(future: Future[None]) -> None:
            joined.end(closed_error() if future.cancelled() else future.exception())

        try:
            self._senders.submit(self._publish, topic, batch).add_done_callback(ended)
        except RuntimeError:  # closed meanwhile
            joined.end(closed_error())

    def _publish(self, topic: str, batch: list[_Message]) -> None:
        """Publish a batch; if some entries fail, only those are sent again."""
        left = {str(number): message for number, message in enumerate(batch)}

        def call() -> None:
            entries = [message.entry(number) for number, message in left.items()]
            answer = self._sns.publish_batch(TopicArn=topic, PublishBatchRequestEntries=entries)
            failed = answer.get("Failed", [])
            for number in left.keys() - {entry["Id"] for entry in failed}:
                del left[number]
            _check_entries(failed)

        def units() -> int:
            sizes = [message.size for message in left.values()]
            self.meter.more_units(f"sns.publish{EACH_MESSAGE}", sum(map(_units, sizes)))
            return _units(sum(sizes))

        self._request("sns.publish", f"publish to {topic}", call, units)

    def _delete(self, receipts: Sequence[str]) -> None:
        """Delete messages; one that cannot be deleted is delivered again and dropped as a duplicate or as stale."""
        left = {str(number): receipt for number, receipt in enumerate(receipts)}

        def call() -> None:
            answer = self._sqs.delete_message_batch(
                QueueUrl=self._queue_url,
                Entries=[{"Id": number, "ReceiptHandle": receipt} for number, receipt in left.items()],
            )
            failed = answer.get("Failed", [])
            for number in left.keys() - {entry["Id"] for entry in failed}:
                del left[number]
            _check_entries(failed)

        with contextlib.suppress(ChannelError):
            self._request("sqs.delete", f"delete messages of {self._queue_url}", call)

    def _request(self, kind: str, what: str, call: Callable[[], T], units: Callable[[], int] = lambda: 1) -> T:
        """Make a request, with retries; each attempt is counted."""

        def classify(error: Exception, _: bool) -> ChannelError:
            return ChannelError(f"cannot {what}: {text_of(error)}", retryable=_is_transient(error))

        def wait(seconds: float) -> None:
            if self._closed.wait(seconds):
                raise closed_error()

        return send(
            kind,
            call,
            meter=self.meter,
            retry=self._settings.retry,
            errors=(*SDK_ERRORS, _EntriesFailedError),
            classify=classify,
            units=units,
            wait=wait,
        )


@dataclass(frozen=True, slots=True)
class _Message:
    """An encoded frame and its target ranks, all of one block."""

    body: str
    to: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes as SNS counts them: the body and the attribute's name, type and value."""
        return len(self.body) + len("to") + len("String.Array") + len(json.dumps(self.to))

    def entry(self, number: str) -> PublishBatchRequestEntryTypeDef:
        return {
            "Id": number,
            "Message": self.body,
            "MessageAttributes": {"to": {"DataType": "String.Array", "StringValue": json.dumps(self.to)}},
        }


class _EntriesFailedError(Exception):
    """Some entries of a batch failed although the request succeeded."""

    def __init__(self, failed: Sequence[Mapping[str, Any]]) -> None:
        first = failed[0]
        super().__init__(
            f"{len(failed)} of the batch failed, the first with {first['Code']}: {first.get('Message', '')}"
        )
        self.is_transient = all(not entry["SenderFault"] or entry["Code"] in _THROTTLED for entry in failed)


def _check_entries(failed: Sequence[Mapping[str, Any]]) -> None:
    if failed:
        raise _EntriesFailedError(failed)


def encode(body: bytes) -> str:
    """Return `body` in URL-safe base64 without padding."""
    return binascii.b2a_base64(body, newline=False).translate(_TO_URL_SAFE, b"=").decode("ascii")


_TO_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def decode(text: str) -> bytes:
    """Return the body of a message; text that is not base64 is returned as bytes, for the inbox to count and drop."""
    try:
        return binascii.a2b_base64(text.translate(_FROM_URL_SAFE) + "=" * (-len(text) % 4), strict_mode=True)
    except ValueError:
        return text.encode(errors="surrogatepass")


def pack(messages: Sequence[_Message], batch_bytes: int) -> list[list[_Message]]:
    """Pack messages into batches of at most 10 messages and `batch_bytes` bytes by first-fit decreasing."""
    ordered = sorted(messages, key=lambda message: message.size, reverse=True)
    batches: defaultdict[int, list[_Message]] = defaultdict(list)
    for message, number in zip(
        ordered, first_fit([message.size for message in ordered], BATCH_ENTRIES, batch_bytes), strict=True
    ):
        batches[number].append(message)
    return list(batches.values())


def _by_block(targets: Iterable[int]) -> dict[int, tuple[str, ...]]:
    blocks: defaultdict[int, list[str]] = defaultdict(list)
    for target in targets:
        blocks[target // RANKS_PER_TOPIC].append(str(target))
    return {block: tuple(ranks) for block, ranks in blocks.items()}


def _units(size: int) -> int:
    return max(1, math.ceil(size / UNIT_BYTES))


def _is_transient(error: Exception) -> bool:
    """Return whether a retry may succeed: the request was throttled, or the service or the connection failed."""
    if isinstance(error, _EntriesFailedError):
        return error.is_transient
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or status == 429 or error.response.get("Error", {}).get("Code") in _THROTTLED
    return was_broken_off(error)


def _check_retries_are_off(client: SNSClient | SQSClient) -> None:
    retries = getattr(client.meta.config, "retries", None) or {}
    if retries.get("total_max_attempts") != 1:
        service = client.meta.service_model.service_name
        raise SettingError(
            f"the {service} client retries requests by itself, which the usage meter cannot count: "
            'make it with Config(retries={"total_max_attempts": 1})'
        )
