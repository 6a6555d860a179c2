"""The channel over SNS and SQS: topics that fan out to one filtered queue per rank.

A lane has one topic per block of `RANKS_PER_TOPIC` ranks, and one queue per rank, which is subscribed to its block's
topic with raw delivery and the filter ``{"to": ["<rank>", "all"]}``. A message's body is the frame in URL-safe base64
without padding (SNS percent-encodes bodies, SQS accepts text only); its attribute ``to`` lists the target ranks.
Messages are not deleted, as that would cost requests: the queues hide a received message until it expires. Only what a
rank receives beyond `HIDDEN_MESSAGES` is deleted, because SQS limits how many may hide.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Self, TypeVar

from fsd_inference.channels.base import Channel, Expected, Frame, Limits
from fsd_inference.channels.publishing import PublishingShare
from fsd_inference.channels.sending import Joined, check_frames, check_limits, closed_error, done
from fsd_inference.config import RetrySettings
from fsd_inference.error_codes import THROTTLED, is_throttled, is_transient
from fsd_inference.errors import ChannelError, SettingError
from fsd_inference.limits import (
    BATCH_ENTRIES,
    HIDDEN_MESSAGES,
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
from fsd_inference.services import NoAnswerError, QueueClient, RefusedError, TopicClient, without_signatures
from fsd_inference.threads import ThreadPool
from fsd_inference.usage import EACH_MESSAGE, RECEIVED_MESSAGES, UsageMeter

T = TypeVar("T")
FailedEntry = tuple[str, str, str, bool]
"""An entry of a batch that failed: its id, error code and message, and whether the sender is at fault."""

ALL = "all"
"""Value of the attribute `to` of a message for every rank of the block."""

_LONGEST_WAIT_S = 20  # WaitTimeSeconds (SQS API)


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """The settings of the queue channel.

    Attributes
    ----------
    message_bytes : int
        Maximum bytes of a message, and of all messages of a batch, including attributes: 256 KiB by default, up to
        1 MiB on topics whose MaximumMessageSize is raised.
    senders : int
        Maximum concurrent publish requests; the clients' connection pools need as many connections, and one more for
        each receiving thread.
    most_hidden : int
        Number of messages that stay in the rank's queue after they were received, hidden until they expire; those
        received later are deleted in batches.
    publish_per_s : float or None
        Messages a second that the account may publish, of which each rank keeps to an equal share; None for no limit.
    retry : RetrySettings
        Retries of throttled, failed and interrupted requests. Only publishing frames uses `throttled_s`.
    """

    message_bytes: int = MESSAGE_BYTES
    senders: int = SENDERS
    most_hidden: int = HIDDEN_MESSAGES
    publish_per_s: float | None = None
    retry: RetrySettings = field(default_factory=RetrySettings)

    def __post_init__(self) -> None:
        least, most = LEAST_MESSAGE_BYTES, LARGEST_MESSAGE_BYTES
        if not least <= self.message_bytes <= most:
            raise SettingError(f"message_bytes must be {least} to {most}, not {self.message_bytes}")
        if self.senders < 1:
            raise SettingError(f"senders must be at least 1, not {self.senders}")
        if self.publish_per_s is not None and not self.publish_per_s > 0:
            raise SettingError(f"publish_per_s must be more than 0 messages a second, not {self.publish_per_s}")


class QueueChannel(Channel):
    """One rank's channel over a lane of topics and queues.

    Parameters
    ----------
    topic_client, queue_client : TopicClient, QueueClient
        Clients of the services.
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
        The number of topics does not match P.
    """

    def __init__(
        self,
        topic_client: TopicClient,
        queue_client: QueueClient,
        *,
        topics: Sequence[str],
        queue_url: str,
        workers: int,
        settings: QueueSettings | None = None,
    ) -> None:
        if len(topics) != math.ceil(workers / RANKS_PER_TOPIC):
            raise SettingError(
                f"{workers} workers need {math.ceil(workers / RANKS_PER_TOPIC)} topics, one per block of "
                f"{RANKS_PER_TOPIC} ranks, not {len(topics)}"
            )
        self._settings = settings or QueueSettings()
        frame_bytes = (self._settings.message_bytes - TARGETS_ATTRIBUTE_BYTES) * 3 // 4
        self.limits = Limits(frame_bytes, BATCH_ENTRIES, frame_bytes, may_lose=True)
        self.meter = UsageMeter()
        self._topic_client = topic_client
        self._queue_client = queue_client
        self._topics = tuple(topics)
        self._queue_url = queue_url
        self._workers = workers
        self._received = 0
        self._closed = threading.Event()
        self._share = PublishingShare(self._settings.publish_per_s, workers)
        self._senders = ThreadPool(self._settings.senders, thread_name_prefix="queue-sender")

    # --- the contract ------------------------------------------------------------------------------------------------

    def send(self, frames: Sequence[Frame]) -> Future[None]:
        if self._closed.is_set():
            raise closed_error()
        check_frames(frames, self.limits, self._workers)
        by_block: defaultdict[int, list[_Message]] = defaultdict(list)
        for frame in frames:
            for block, targets in _by_block(frame.targets).items():
                by_block[block].append(_Message.to(targets, frame.body))
            self.meter.sent(frames=1, wire_bytes=len(frame.body), body_bytes=_text_bytes(frame.body))
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
        hidden for the queue's visibility timeout, which is longer than a run.
        """
        if self._closed.is_set():
            raise closed_error()
        if not expected:
            self._closed.wait(timeout_s)
            return []
        wait_s = min(_LONGEST_WAIT_S, math.ceil(max(0.0, timeout_s)))
        bodies, size, receipts = self._request(
            "sqs.receive",
            f"receive from {self._queue_url}",
            lambda: self._queue_client.receive(self._queue_url, BATCH_ENTRIES, wait_s),
        )
        if not bodies:
            self.meter.empty_poll()
            return []
        self.meter.received(size)
        self.meter.more_units("sqs.receive", _units(size) - 1)
        self.meter.more_units(RECEIVED_MESSAGES, sum(_units(_text_bytes(body)) for body in bodies))
        self._received += len(bodies)
        if self._received > self._settings.most_hidden:
            self._delete(receipts)
        return bodies

    def abort(self, frame: Frame) -> None:
        if self._closed.is_set():
            raise closed_error()
        check_limits([frame], self.limits)
        message = _Message.to([ALL], frame.body)
        self.meter.sent(frames=1, wire_bytes=len(frame.body), body_bytes=_text_bytes(frame.body))
        for topic in self._topics:
            self._publish(topic, [message], is_abort=True)

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

    def _publish(self, topic: str, batch: list[_Message], *, is_abort: bool = False) -> None:
        """Publish a batch; if some entries fail, only those are sent again.

        Each attempt waits for its messages' turn in the rank's share, and is repeated while the service throttles it.
        An abort is a single message, which must be out soon or not at all.
        """
        left = {str(number): message for number, message in enumerate(batch)}

        def call() -> None:
            if not is_abort and (wait_s := self._share.wait_s(len(left))):
                self._pause(wait_s)
            entries = [(number, message.body, message.targets) for number, message in left.items()]
            _keep_failed(left, self._topic_client.publish(topic, entries))

        def units() -> int:
            sizes = [message.size for message in left.values()]
            self.meter.more_units(f"sns.publish{EACH_MESSAGE}", sum(map(_units, sizes)))
            return _units(sum(sizes))

        self._request(
            "sns.publish", f"publish to {topic}", call, units, is_throttled=None if is_abort else _is_throttled
        )

    def _delete(self, receipts: Sequence[str]) -> None:
        """Delete messages; one that cannot be deleted is delivered again and dropped as a duplicate or as stale."""
        left = {str(number): receipt for number, receipt in enumerate(receipts)}

        def call() -> None:
            _keep_failed(left, self._queue_client.delete(self._queue_url, list(left.items())))

        with contextlib.suppress(ChannelError):
            self._request("sqs.delete", f"delete messages of {self._queue_url}", call)

    def _pause(self, seconds: float) -> None:
        """Wait; raise a `ChannelError` as soon as the channel is closed."""
        if self._closed.wait(seconds):
            raise closed_error()

    def _request(
        self,
        kind: str,
        what: str,
        call: Callable[[], T],
        units: Callable[[], int] = lambda: 1,
        is_throttled: Callable[[Exception], bool] | None = None,
    ) -> T:
        """Make a request, with retries; each attempt is counted."""

        def classify(error: Exception, _: bool) -> ChannelError:
            return ChannelError(f"cannot {what}: {without_signatures(error.args[0])}", retryable=_is_transient(error))

        return send(
            kind,
            call,
            meter=self.meter,
            retry=self._settings.retry,
            errors=(RefusedError, NoAnswerError, _EntriesFailedError),
            classify=classify,
            units=units,
            wait=self._pause,
            is_throttled=is_throttled,
        )


@dataclass(frozen=True, slots=True)
class _Message:
    """A frame and its target ranks, all of one block.

    Attributes
    ----------
    body : bytes
    targets : str
        Value of the attribute `to`: a JSON array of strings.
    size : int
        Bytes as SNS counts them: the body's text and the attribute's name, type and value.
    """

    body: bytes
    targets: str
    size: int

    @classmethod
    def to(cls, targets: Sequence[str], body: bytes) -> Self:
        value = json.dumps(targets)
        return cls(body, value, _text_bytes(body) + len("to") + len("String.Array") + len(value))


class _EntriesFailedError(Exception):
    """Some entries of a batch failed although the request succeeded."""

    def __init__(self, failed: Sequence[FailedEntry]) -> None:
        _, code, message, _ = failed[0]
        super().__init__(f"{len(failed)} of the batch failed, the first with {code}: {message}")
        self.is_throttled = any(code in THROTTLED for _, code, *_ in failed)
        self.is_transient = all(not is_senders_fault or code in THROTTLED for _, code, _, is_senders_fault in failed)


def _keep_failed(left: dict[str, T], failed: Sequence[FailedEntry]) -> None:
    """Remove the entries of a batch that succeeded, and raise `_EntriesFailedError` if any failed."""
    for number in left.keys() - {number for number, *_ in failed}:
        del left[number]
    if failed:
        raise _EntriesFailedError(failed)


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


def _text_bytes(body: bytes) -> int:
    """Return the length of the text of a body, base64 without padding."""
    return -(-len(body) * 4 // 3)


def _units(size: int) -> int:
    return max(1, math.ceil(size / UNIT_BYTES))


def _is_throttled(error: Exception) -> bool:
    if isinstance(error, _EntriesFailedError):
        return error.is_throttled
    return isinstance(error, RefusedError) and is_throttled(*error.args[1:])


def _is_transient(error: Exception) -> bool:
    """Return whether a retry may succeed: the request was throttled, or the service or the connection failed."""
    if isinstance(error, _EntriesFailedError):
        return error.is_transient
    if isinstance(error, RefusedError):
        _, status, code = error.args
        return is_transient(status, code)
    return isinstance(error, NoAnswerError)
