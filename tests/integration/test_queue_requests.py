"""The queue channel: request counts compared with the proxy's, with and without faults, and the resulting errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from fsd_inference.aws.clients import Clients
from fsd_inference.channels.base import Expected, Frame, Kind
from fsd_inference.channels.queue import QueueChannel, QueueSettings
from fsd_inference.chaos.proxy import Fault, FaultProxy
from fsd_inference.config import RetrySettings
from fsd_inference.errors import ChannelError
from fsd_inference.limits import HIDDEN_MESSAGES
from tests.support.lane import Lane

pytestmark = pytest.mark.emulator

QUICK = RetrySettings(attempts=4, base_s=0.001, cap_s=0.01)
EXPECTED = [Expected(Kind.DATA, 0, 0, 0)]

OpenPair = Callable[..., tuple[QueueChannel, QueueChannel]]


@pytest.fixture
def open_pair(queue_clients: Clients, proxy: FaultProxy) -> Iterator[OpenPair]:
    """Return a function that opens the channels of ranks 0 and 1; their requests go through the proxy."""
    through_proxy = Clients(proxy.url, emulated=True)
    opened: list[QueueChannel] = []

    def opener(settings: QueueSettings | None = None) -> tuple[QueueChannel, QueueChannel]:
        lane = Lane.make(queue_clients, 2)
        settings = settings or QueueSettings(retry=QUICK)
        pair = (lane.channel(through_proxy, 0, settings), lane.channel(through_proxy, 1, settings))
        opened.extend(pair)
        return pair

    yield opener
    for channel in opened:
        channel.close()
    through_proxy.close()


def frames(*bodies: bytes) -> list[Frame]:
    return [Frame(Kind.DATA, 0, 0, (1,), body) for body in bodies]


def drain(channel: QueueChannel, count: int) -> list[bytes]:
    came: list[bytes] = []
    while len(set(came)) < count:
        came += channel.receive(EXPECTED, 5)
    return came


def use_everything(sender: QueueChannel, receiver: QueueChannel) -> None:
    sender.send(frames(*(bytes([i]) * 1000 for i in range(25)))).result(30)
    sender.send(frames(bytes(150_000), bytes(150_000))).result(30)
    sender.abort(Frame(Kind.ABORT, 0, 0, (0, 1), b"abort"))
    assert len(drain(receiver, 27)) >= 27
    assert receiver.receive(EXPECTED, 0) == []


def assert_counts_equal(proxy: FaultProxy, *channels: QueueChannel) -> None:
    requests = sum((channel.meter.snapshot().requests for channel in channels), start=type(proxy.counts)())
    assert dict(requests) == dict(proxy.counts)


@pytest.mark.parametrize("delete", [False, True])
def test_counts_equal_the_proxys(open_pair: OpenPair, proxy: FaultProxy, delete: bool) -> None:
    sender, receiver = open_pair(QueueSettings(retry=QUICK, most_hidden=0 if delete else HIDDEN_MESSAGES))
    use_everything(sender, receiver)
    assert_counts_equal(proxy, sender, receiver)
    sent, received = sender.meter.snapshot(), receiver.meter.snapshot()
    assert sent.requests == {"sns.publish": 3 + 2 + 1}
    assert sent.billed_units["sns.publish"] == 3 + 2 * 4 + 1
    assert sent.frames == 28
    assert sent.retries == received.retries == 0
    assert received.empty_polls == 1
    assert ("sqs.delete" in received.requests) is delete
    assert received.received_bytes == sent.body_bytes


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=503),
        Fault(status=500, code="InternalError"),
        Fault(status=429),
        Fault(reset=True),
        Fault(lose_answer=True),
    ],
    ids=str,
)
def test_counts_equal_the_proxys_when_each_kind_is_retried(
    open_pair: OpenPair, proxy: FaultProxy, fault: Fault
) -> None:
    sender, receiver = open_pair(QueueSettings(retry=QUICK, most_hidden=0))
    # A receive whose answer is lost has hidden its messages until their visibility runs out.
    spared = {"sqs.receive"} if fault.lose_answer else set()
    proxy.hook = lambda request: fault if request.number < 2 and request.kind not in spared else None
    use_everything(sender, receiver)
    assert_counts_equal(proxy, sender, receiver)
    retries = sender.meter.snapshot().retries + receiver.meter.snapshot().retries
    assert retries == 6 - 2 * len(spared)


@pytest.mark.parametrize(
    ("fault", "attempts", "retryable"),
    [(Fault(status=503), 4, True), (Fault(reset=True), 4, True), (Fault(status=403, code="AccessDenied"), 1, False)],
    ids=str,
)
def test_what_cannot_be_mended_is_an_error(
    open_pair: OpenPair, proxy: FaultProxy, fault: Fault, attempts: int, retryable: bool
) -> None:
    sender, receiver = open_pair()
    proxy.hook = lambda request: fault
    failed = sender.send(frames(b"x"))
    with pytest.raises(ChannelError, match=r"cannot publish to .*lane") as sending:
        failed.result(30)
    with pytest.raises(ChannelError, match=r"cannot receive from .*lane") as receiving:
        receiver.receive(EXPECTED, 0)
    with pytest.raises(ChannelError, match="cannot publish") as aborting:
        sender.abort(Frame(Kind.ABORT, 0, 0, (0, 1), b"abort"))
    assert {caught.value.retryable for caught in (sending, receiving, aborting)} == {retryable}
    assert_counts_equal(proxy, sender, receiver)
    assert proxy.counts == {"sns.publish": 2 * attempts, "sqs.receive": attempts}


def test_no_poll_is_opened_when_nothing_is_expected(open_pair: OpenPair, proxy: FaultProxy) -> None:
    _, receiver = open_pair()
    assert receiver.receive([], 0.05) == []
    assert not proxy.counts
    assert not receiver.meter.snapshot().requests


def test_close_ends_a_send_that_is_being_retried(open_pair: OpenPair, proxy: FaultProxy) -> None:
    sender, _ = open_pair(QueueSettings(retry=RetrySettings(attempts=100, base_s=60, cap_s=60), senders=1))
    proxy.hook = lambda request: Fault(status=503)
    waiting, queued = sender.send(frames(b"x")), sender.send(frames(b"y"))
    while not proxy.counts:
        pass
    sender.close()
    for future in (waiting, queued):
        with pytest.raises(ChannelError, match="closed"):
            future.result(30)


def test_deleted_messages_are_gone_and_others_are_not(open_pair: OpenPair, queue_clients: Clients) -> None:
    for most_hidden, left in ((0, "0"), (3, "3")):
        sender, receiver = open_pair(QueueSettings(most_hidden=most_hidden))
        sender.send(frames(b"1", b"2", b"3")).result(30)
        drain(receiver, 3)
        attributes = queue_clients.sqs.get_queue_attributes(
            QueueUrl=receiver._queue_url, AttributeNames=["ApproximateNumberOfMessagesNotVisible"]
        )["Attributes"]
        assert attributes["ApproximateNumberOfMessagesNotVisible"] == left
