"""The queue channel without a service: packing, encoding, partial failures and waits."""

from __future__ import annotations

import json
import string
from typing import Any

import pytest
from botocore.config import Config
from botocore.stub import Stubber
from hypothesis import given
from hypothesis import strategies as st

from fsd_inference.aws.sessions import emulator_session
from fsd_inference.channels.base import Expected, Frame, Kind
from fsd_inference.channels.queue import QueueChannel, QueueSettings, _Message, decode, encode, pack
from fsd_inference.config import RetrySettings
from fsd_inference.errors import ChannelError, SettingError

TOPIC = "arn:aws:sns:us-east-1:000000000000:lane-0"
QUEUE = "http://127.0.0.1/000000000000/lane-rank-0"
OFF = Config(retries={"total_max_attempts": 1})
SESSION = emulator_session(None).boto3
EXPECTED = [Expected(Kind.DATA, 0, 0, 1)]


class Stubbed:
    """A channel whose clients answer what is queued up for them, and check what they are asked."""

    def __init__(self, **settings: Any) -> None:
        sns, sqs = SESSION.client("sns", config=OFF), SESSION.client("sqs", config=OFF)
        self.sns, self.sqs = Stubber(sns), Stubber(sqs)
        self.sns.activate()
        self.sqs.activate()
        retry = RetrySettings(attempts=3, base_s=0, cap_s=0)
        self.channel = QueueChannel(
            sns, sqs, topics=[TOPIC], queue_url=QUEUE, workers=3, settings=QueueSettings(retry=retry, **settings)
        )

    def answer_publish(self, bodies: dict[str, bytes], failed: list[dict[str, Any]]) -> None:
        entries = [
            {
                "Id": number,
                "Message": encode(body),
                "MessageAttributes": {"to": {"DataType": "String.Array", "StringValue": json.dumps(["1"])}},
            }
            for number, body in bodies.items()
        ]
        taken = [{"Id": number, "MessageId": number} for number in bodies if number not in {f["Id"] for f in failed}]
        self.sns.add_response(
            "publish_batch",
            {"Successful": taken, "Failed": failed},
            {"TopicArn": TOPIC, "PublishBatchRequestEntries": entries},
        )

    def done(self) -> None:
        self.sns.assert_no_pending_responses()
        self.sqs.assert_no_pending_responses()
        self.channel.close()


def frames(*bodies: bytes) -> list[Frame]:
    return [Frame(Kind.DATA, 0, 0, (1,), body) for body in bodies]


def test_only_the_entries_that_failed_are_sent_again() -> None:
    stubbed = Stubbed()
    busy = {"Id": "1", "Code": "InternalError", "Message": "busy", "SenderFault": False}
    throttled = {"Id": "1", "Code": "Throttling", "Message": "slow down", "SenderFault": True}
    stubbed.answer_publish({"0": b"a", "1": b"b", "2": b"c"}, [busy, {**busy, "Id": "2"}])
    stubbed.answer_publish({"1": b"b", "2": b"c"}, [throttled])
    stubbed.answer_publish({"1": b"b"}, [])
    stubbed.channel.send(frames(b"a", b"b", b"c")).result(30)
    usage = stubbed.channel.meter.snapshot()
    assert (usage.requests["sns.publish"], usage.retries, usage.frames) == (3, 2, 3)
    stubbed.done()


@pytest.mark.parametrize(
    ("entry", "attempts", "retryable"),
    [
        ({"Code": "InvalidParameter", "SenderFault": True}, 1, False),
        ({"Code": "InternalError", "SenderFault": False}, 3, True),
    ],
)
def test_entries_that_keep_failing_are_an_error(entry: dict[str, Any], attempts: int, retryable: bool) -> None:
    stubbed = Stubbed()
    for _ in range(attempts):
        stubbed.answer_publish({"0": b"a"}, [{"Id": "0", "Message": "why", **entry}])
    with pytest.raises(ChannelError, match=f"{entry['Code']}: why") as caught:
        stubbed.channel.send(frames(b"a")).result(30)
    assert caught.value.retryable is retryable
    assert stubbed.channel.meter.snapshot().requests["sns.publish"] == attempts
    stubbed.done()


def test_throttling_with_a_client_error_status_is_retried() -> None:
    stubbed = Stubbed()
    for code in ("Throttling", "ThrottledException"):
        stubbed.sns.add_client_error("publish_batch", code, http_status_code=400)
    stubbed.answer_publish({"0": b"a"}, [])
    stubbed.channel.send(frames(b"a")).result(30)
    assert stubbed.channel.meter.snapshot().retries == 2
    stubbed.done()


@pytest.mark.parametrize(("timeout_s", "wait"), [(0, 0), (0.01, 1), (1.0, 1), (1.5, 2), (20, 20), (300, 20)])
def test_waits_are_whole_seconds_and_at_most_twenty(timeout_s: float, wait: int) -> None:
    stubbed = Stubbed()
    stubbed.sqs.add_response(
        "receive_message", {}, {"QueueUrl": QUEUE, "MaxNumberOfMessages": 10, "WaitTimeSeconds": wait}
    )
    assert stubbed.channel.receive(EXPECTED, timeout_s) == []
    assert stubbed.channel.meter.snapshot().empty_polls == 1
    stubbed.done()


def test_a_large_answer_is_billed_by_its_units_and_text_that_is_no_frame_is_handed_on() -> None:
    stubbed = Stubbed()
    texts = ["A" * 100_000, "not base64!", "", "A", "ü"]
    stubbed.sqs.add_response("receive_message", {"Messages": [{"Body": text, "ReceiptHandle": "r"} for text in texts]})
    bodies = stubbed.channel.receive(EXPECTED, 0)
    assert bodies == [bytes(75_000), b"not base64!", b"", b"A", "ü".encode()]
    usage = stubbed.channel.meter.snapshot()
    assert (usage.requests["sqs.receive"], usage.billed_units["sqs.receive"]) == (1, 2)
    stubbed.done()


def test_a_batch_is_rounded_both_ways() -> None:
    stubbed = Stubbed()
    bodies = [bytes([i]) * 8000 for i in range(10)]
    stubbed.sns.add_response("publish_batch", {"Successful": [], "Failed": []})
    stubbed.channel.send(frames(*bodies)).result(30)
    assert stubbed.channel.meter.snapshot().billed_units == {"sns.publish": 2, "sns.publish.messages": 10}
    stubbed.done()


def test_clients_that_retry_by_themselves_are_refused() -> None:
    sns, sqs = SESSION.client("sns", config=OFF), SESSION.client("sqs")
    with pytest.raises(SettingError, match="the sqs client retries requests"):
        QueueChannel(sns, sqs, topics=[TOPIC], queue_url=QUEUE, workers=3)


@pytest.mark.parametrize(("workers", "topics"), [(1, 0), (100, 2), (101, 1), (250, 2)])
def test_topics_must_fit_the_workers(workers: int, topics: int) -> None:
    sns, sqs = SESSION.client("sns", config=OFF), SESSION.client("sqs", config=OFF)
    with pytest.raises(SettingError, match=f"{workers} workers need"):
        QueueChannel(sns, sqs, topics=[TOPIC] * topics, queue_url=QUEUE, workers=workers)


@pytest.mark.parametrize("wrong", [{"message_bytes": 1}, {"senders": 0}])
def test_nonsense_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong))):
        QueueSettings(**wrong)


@given(st.binary(max_size=500))
def test_encoding_keeps_the_bytes_and_needs_no_percent_encoding(body: bytes) -> None:
    text = encode(body)
    assert decode(text) == body
    assert set(text) <= set(string.ascii_letters + string.digits + "-_")
    assert len(text) == -(-len(body) * 4 // 3)


@given(st.lists(st.integers(0, 3000), max_size=60))
def test_batches_hold_every_message_once_within_both_limits(sizes: list[int]) -> None:
    messages = [_Message("A" * size, (str(number),)) for number, size in enumerate(sizes)]
    batches = pack(messages, 4000)
    assert sorted(message.to for batch in batches for message in batch) == sorted(message.to for message in messages)
    for batch in batches:
        assert 1 <= len(batch) <= 10
        assert sum(message.size for message in batch) <= 4000
    # First-fit decreasing leaves at most one batch that is neither full nor more than half full.
    slack = [batch for batch in batches if len(batch) < 10 and sum(message.size for message in batch) <= 2000]
    assert len(slack) <= 1
