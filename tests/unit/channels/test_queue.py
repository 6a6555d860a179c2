"""The queue channel beside a service that a test controls: packing, partial failures, retries and waits."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsd_inference.channels.base import Expected, Frame, Kind
from fsd_inference.channels.queue import QueueChannel, QueueSettings, _Message, pack
from fsd_inference.config import RetrySettings
from fsd_inference.errors import ChannelError, SettingError
from fsd_inference.limits import HIDDEN_MESSAGES, LONGEST_POLL_S
from tests.support.message_service import Answer, MessageService, deleted, published, received

TOPIC = "arn:aws:sns:us-east-1:000000000000:lane-0"
QUEUE = "http://127.0.0.1/000000000000/lane-rank-0"
EXPECTED = [Expected(Kind.DATA, 0, 0, 1)]


@pytest.fixture(scope="module")
def running() -> Iterator[MessageService]:
    with MessageService() as started:
        yield started


@pytest.fixture
def service(running: MessageService) -> MessageService:
    return running.emptied()


def opened(service: MessageService, *, throttled_s: float = 0.0, **settings: Any) -> QueueChannel:
    retry = RetrySettings(attempts=3, base_s=0, cap_s=0, throttled_s=throttled_s)
    return QueueChannel(
        service.topics,
        service.queues,
        topics=[TOPIC],
        queue_url=QUEUE,
        workers=3,
        settings=QueueSettings(retry=retry, **settings),
    )


def frames(*bodies: bytes) -> list[Frame]:
    return [Frame(Kind.DATA, 0, 0, (1,), body) for body in bodies]


def text(body: bytes) -> str:
    return urlsafe_b64encode(body).decode().rstrip("=")


def entries(service: MessageService) -> list[dict[str, str]]:
    """Return the messages of each publish request by id, after a check of their attributes."""
    found = []
    for request in service.requests:
        form, messages, number = request.form, {}, 1
        while (entry := f"PublishBatchRequestEntries.member.{number}") + ".Id" in form:
            attribute = f"{entry}.MessageAttributes.entry.1"
            assert form[f"{attribute}.Name"] == "to"
            assert form[f"{attribute}.Value.DataType"] == "String.Array"
            assert form[f"{attribute}.Value.StringValue"] == json.dumps(["1"])
            messages[form[f"{entry}.Id"]] = form[f"{entry}.Message"]
            number += 1
        assert form["TopicArn"] == TOPIC
        found.append(messages)
    return found


def test_only_the_entries_that_failed_are_sent_again(service: MessageService) -> None:
    busy = {"Id": "1", "Code": "InternalError", "Message": "busy", "SenderFault": False}
    throttled = {"Id": "1", "Code": "Throttling", "Message": "slow down", "SenderFault": True}
    service.answers.extend((published([busy, {**busy, "Id": "2"}]), published([throttled]), published()))
    channel = opened(service)
    channel.send(frames(b"a", b"b", b"c")).result(30)
    a, b, c = text(b"a"), text(b"b"), text(b"c")
    assert entries(service) == [{"0": a, "1": b, "2": c}, {"1": b, "2": c}, {"1": b}]
    usage = channel.meter.snapshot()
    assert (usage.requests["sns.publish"], usage.retries, usage.frames) == (3, 2, 3)
    channel.close()


@pytest.mark.parametrize(
    ("entry", "attempts", "retryable"),
    [
        ({"Code": "InvalidParameter", "SenderFault": True}, 1, False),
        ({"Code": "InternalError", "SenderFault": False}, 3, True),
    ],
)
def test_entries_that_keep_failing_are_an_error(
    service: MessageService, entry: dict[str, Any], attempts: int, retryable: bool
) -> None:
    service.answers.append(published([{"Id": "0", "Message": "why", **entry}]))
    channel = opened(service)
    with pytest.raises(ChannelError, match=f"{entry['Code']}: why") as caught:
        channel.send(frames(b"a")).result(30)
    assert caught.value.retryable is retryable
    assert channel.meter.snapshot().requests["sns.publish"] == attempts == len(service.requests)
    channel.close()


def test_throttling_with_a_client_error_status_is_retried(service: MessageService) -> None:
    for code in ("Throttling", "ThrottledException"):
        error = f"<ErrorResponse><Error><Code>{code}</Code><Message>slow</Message></Error></ErrorResponse>"
        service.answers.append(Answer(error.encode(), 400))
    service.answers.append(published())
    channel = opened(service)
    channel.send(frames(b"a")).result(30)
    assert channel.meter.snapshot().retries == 2
    channel.close()


def refused(code: str, status: int = 400) -> Answer:
    return Answer(f"<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>".encode(), status)


@pytest.mark.parametrize(
    "answer",
    [
        refused("Throttled", 429),
        refused("ThrottledException"),
        refused("KMSThrottling"),
        refused("Unheard", 429),
        published([{"Id": "0", "Code": "Throttled", "Message": "slow down", "SenderFault": True}]),
    ],
    ids=["Throttled", "ThrottledException", "KMSThrottling", "429", "an entry"],
)
def test_a_throttled_publish_is_repeated_for_as_long_as_the_stall_clock(
    service: MessageService, answer: Answer
) -> None:
    service.answers.extend([*[answer] * 20, published()])
    channel = opened(service, throttled_s=3600)
    channel.send(frames(b"a")).result(30)
    assert len(entries(service)) == channel.meter.snapshot().requests["sns.publish"] == 21
    channel.close()


def test_what_is_throttled_for_longer_than_that_is_an_error(service: MessageService) -> None:
    service.answers.append(refused("Throttled", 429))
    channel = opened(service, throttled_s=1e-9)
    with pytest.raises(ChannelError, match="the service answered 429 Throttled") as caught:
        channel.send(frames(b"a")).result(30)
    assert caught.value.retryable
    assert len(service.requests) == 3
    channel.close()


def test_only_throttled_publishes_are_repeated_for_long(service: MessageService) -> None:
    channel = opened(service, throttled_s=3600)
    service.answers.append(refused("InternalError", 500))
    with pytest.raises(ChannelError, match="InternalError"):
        channel.send(frames(b"a")).result(30)
    service.emptied().answers.append(refused("Throttled", 429))
    with pytest.raises(ChannelError, match="cannot publish"):
        channel.abort(Frame(Kind.ABORT, 0, 0, (0, 1), b"abort"))  # must be out soon, or not at all
    service.emptied().answers.append(Answer(b'{"__type": "OverLimit"}', 400))
    with pytest.raises(ChannelError, match="OverLimit"):
        channel.receive(EXPECTED, 0)
    usage = channel.meter.snapshot()
    assert usage.requests == {"sns.publish": 3 + 3, "sqs.receive": 3}
    channel.close()


def test_messages_beyond_the_share_wait_for_their_turn_until_the_channel_is_closed(service: MessageService) -> None:
    service.answers.append(published())
    channel = opened(service, publish_per_s=1e-3)  # three ranks: ten messages at once, the next ten in 30,000 s
    first = channel.send(frames(*[b"a"] * 10))
    first.result(30)
    waiting = channel.send(frames(*[b"b"] * 10))
    channel.abort(Frame(Kind.ABORT, 0, 0, (0, 1), b"abort"))  # does not wait
    channel.close()
    with pytest.raises(ChannelError, match="closed"):
        waiting.result(30)
    published_first = [request.form["PublishBatchRequestEntries.member.1.Message"] for request in service.requests]
    assert published_first == [text(b"a"), text(b"abort")]


def test_a_refusal_is_one_line_without_signatures(service: MessageService) -> None:
    said = "does not match:\nAWS4-HMAC-SHA256 Credential=id, Signature=f00"
    service.answers.append(Answer(json.dumps({"__type": "a#SignatureDoesNotMatch", "message": said}).encode(), 403))
    channel = opened(service)
    with pytest.raises(ChannelError, match="the service answered 403 SignatureDoesNotMatch") as caught:
        channel.receive(EXPECTED, 0)
    assert not caught.value.retryable
    assert "f00" not in str(caught.value)
    assert "\n" not in str(caught.value)
    channel.close()


@pytest.mark.parametrize(("timeout_s", "wait"), [(0, 0), (0.01, 1), (1.0, 1), (1.5, 2), (20, 20), (300, 20)])
def test_waits_are_whole_seconds_and_at_most_twenty(service: MessageService, timeout_s: float, wait: int) -> None:
    service.answers.append(received())
    channel = opened(service)
    assert channel.receive(EXPECTED, timeout_s) == []
    assert channel.meter.snapshot().empty_polls == 1
    (request,) = service.requests
    assert request.json == {"QueueUrl": QUEUE, "MaxNumberOfMessages": 10, "WaitTimeSeconds": wait}
    channel.close()


def test_a_large_answer_is_billed_by_its_units_and_text_that_is_no_frame_is_handed_on(service: MessageService) -> None:
    service.answers.append(received("A" * 100_000, "not base64!", "", "A", "ü"))
    channel = opened(service)
    assert channel.receive(EXPECTED, 0) == [bytes(75_000), b"not base64!", b"", b"A", "ü".encode()]
    usage = channel.meter.snapshot()
    assert (usage.requests["sqs.receive"], usage.billed_units["sqs.receive"]) == (1, 2)
    assert usage.billed_units["sqs.receive.messages"] == 2 + 4
    channel.close()


def test_only_the_messages_that_were_not_deleted_are_deleted_again(service: MessageService) -> None:
    busy = {"Id": "1", "Code": "InternalError", "Message": "busy", "SenderFault": False}
    service.answers.extend((received("AAAA", "BBBB", "CCCC"), deleted([busy]), deleted()))
    channel = opened(service, most_hidden=0)
    assert len(channel.receive(EXPECTED, 0)) == 3
    _, first, second = service.requests
    all_three = [{"Id": str(number), "ReceiptHandle": f"receipt-{number}"} for number in range(3)]
    assert first.json == {"QueueUrl": QUEUE, "Entries": all_three}
    assert second.json == {"QueueUrl": QUEUE, "Entries": all_three[1:2]}
    assert channel.meter.snapshot().requests["sqs.delete"] == 2
    channel.close()


def test_messages_are_deleted_once_more_would_hide_than_may(service: MessageService) -> None:
    service.answers.extend((received("AAAA", "BBBB"), received("CCCC"), received("DDDD", "EEEE"), deleted()))
    channel = opened(service, most_hidden=3)
    for _ in range(3):
        channel.receive(EXPECTED, 0)
    *receives, delete = service.requests
    assert ["Entries" in request.json for request in receives] == [False] * 3
    assert [entry["Id"] for entry in delete.json["Entries"]] == ["0", "1"]
    channel.close()


class LimitedQueue:
    """A queue of many messages that hands out no more once `LIMIT` of them are hidden: long polls find nothing then."""

    LIMIT = 120_000

    def __init__(self, messages: int, hidden: int) -> None:
        self.left, self.hidden, self.most_hidden = messages, hidden, hidden

    def receive(self, _: str, most: int, wait_s: int) -> tuple[list[bytes], int, list[str]]:
        assert wait_s > 0  # short polls would raise OverLimit
        count = min(most, self.left, self.LIMIT - self.hidden)
        self.left -= count
        self.hidden += count
        self.most_hidden = max(self.most_hidden, self.hidden)
        return [b"body"] * count, 4 * count, ["receipt"] * count

    def delete(self, _: str, entries: list[tuple[str, str]]) -> list[object]:
        self.hidden -= len(entries)
        return []


@pytest.mark.parametrize(("most_hidden", "received"), [(HIDDEN_MESSAGES, 150_000), (1 << 40, 70_000)])
def test_a_rank_may_receive_more_messages_than_a_queue_may_hide(
    service: MessageService, most_hidden: int, received: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = LimitedQueue(150_000, hidden=HIDDEN_MESSAGES)  # those of earlier runs
    channel = opened(service, most_hidden=most_hidden)
    monkeypatch.setattr(channel, "_queue_client", queue)
    found = 0
    while bodies := channel.receive(EXPECTED, LONGEST_POLL_S):
        found += len(bodies)
    assert found == received
    assert queue.most_hidden == (2 * HIDDEN_MESSAGES + 10 if received == 150_000 else LimitedQueue.LIMIT)
    channel.close()


def test_a_batch_is_rounded_both_ways(service: MessageService) -> None:
    service.answers.append(published())
    channel = opened(service)
    channel.send(frames(*(bytes([i]) * 8000 for i in range(10)))).result(30)
    assert channel.meter.snapshot().billed_units == {"sns.publish": 2, "sns.publish.messages": 10}
    channel.close()


@pytest.mark.parametrize("message_bytes", [1 << 18, 1 << 20])
def test_messages_and_batches_fill_what_the_topics_take_and_no_more(
    service: MessageService, message_bytes: int
) -> None:
    channel = opened(service, message_bytes=message_bytes)
    largest = channel.limits.frame_bytes
    third = largest // 3 - 1000
    bodies = [bytes([number]) * size for number, size in enumerate([largest, third, third, third, third])]
    service.answers.extend(published() for _ in range(3))
    channel.send(frames(*bodies)).result(30)
    batches = entries(service)
    # Name, type and value of the attribute count as well: 2, 12 and 5 bytes.
    sizes = [sum(len(body) + len('toString.Array["1"]') for body in batch.values()) for batch in batches]
    assert sorted(len(batch) for batch in batches) == [1, 1, 3]
    assert max(sizes) <= message_bytes
    assert sum(size > 0.98 * message_bytes for size in sizes) == 2
    channel.close()


@pytest.mark.parametrize(("workers", "topics"), [(1, 0), (100, 2), (101, 1), (250, 2)])
def test_topics_must_fit_the_workers(service: MessageService, workers: int, topics: int) -> None:
    with pytest.raises(SettingError, match=f"{workers} workers need"):
        QueueChannel(service.topics, service.queues, topics=[TOPIC] * topics, queue_url=QUEUE, workers=workers)


@pytest.mark.parametrize("wrong", [{"message_bytes": 1}, {"senders": 0}, {"publish_per_s": 0.0}])
def test_nonsense_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong))):
        QueueSettings(**wrong)


@given(st.binary(max_size=500))
def test_a_message_is_counted_with_the_text_of_its_body(body: bytes) -> None:
    assert _Message.to(["1"], body).size == len(text(body)) + len("to") + len("String.Array") + len('["1"]')


@given(st.lists(st.integers(0, 3000), max_size=60))
def test_batches_hold_every_message_once_within_both_limits(sizes: list[int]) -> None:
    messages = [_Message.to([str(number)], bytes(size * 3 // 4)) for number, size in enumerate(sizes)]
    batches = pack(messages, 4000)
    assert sorted(message.targets for batch in batches for message in batch) == sorted(
        message.targets for message in messages
    )
    for batch in batches:
        assert 1 <= len(batch) <= 10
        assert sum(message.size for message in batch) <= 4000
    # First-fit decreasing leaves at most one batch that is neither full nor more than half full.
    slack = [batch for batch in batches if len(batch) < 10 and sum(message.size for message in batch) <= 2000]
    assert len(slack) <= 1
