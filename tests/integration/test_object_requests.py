"""The object channel over S3: its request counts compared with the proxy's, its reads, and its errors under faults."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from fsd_inference.channels.base import Expected, Frame, Kind
from fsd_inference.channels.object import ObjectChannel, ObjectSettings, sweep
from fsd_inference.chaos.proxy import Fault, FaultProxy
from fsd_inference.config import RetrySettings
from fsd_inference.errors import ChannelError
from fsd_inference.store.bucket import Credentials
from fsd_inference.store.s3 import S3Store
from fsd_inference.usage import Usage, UsageMeter

pytestmark = pytest.mark.emulator

QUICK = RetrySettings(attempts=4, base_s=0.001, cap_s=0.01)
Open = Callable[..., list[ObjectChannel]]


@pytest.fixture
def open_channels(proxy: FaultProxy, new_bucket: Callable[[], str]) -> Iterator[Open]:
    """Return a function that opens the channels of an attempt, whose requests go through the proxy."""
    buckets = [new_bucket() for _ in range(2)]
    opened: list[ObjectChannel] = []
    stores: list[S3Store] = []

    def opener(workers: int, settings: ObjectSettings | None = None, attempt: int = 1) -> list[ObjectChannel]:
        channels = []
        for rank in range(workers):
            meter = UsageMeter()
            mine = [
                S3Store(
                    bucket,
                    endpoint_url=proxy.url,
                    region="us-east-1",
                    credentials=Credentials("test", "test"),
                    meter=meter,
                )
                for bucket in buckets
            ]
            stores.extend(mine)
            channels.append(
                ObjectChannel(
                    mine,
                    run="run",
                    attempt=attempt,
                    rank=rank,
                    workers=workers,
                    settings=replace(settings or ObjectSettings(), retry=QUICK),
                )
            )
        opened.extend(channels)
        return channels

    yield opener
    for channel in opened:
        channel.close()
    for store in stores:
        store.close()


def data(body: bytes, *targets: int, layer: int = 0) -> Frame:
    return Frame(Kind.DATA, layer, 0, targets, body)


def wants(*sources: int, layer: int = 0) -> list[Expected]:
    return [Expected(Kind.DATA, layer, 0, source) for source in sources]


def collect(channel: ObjectChannel, expected: list[Expected], count: int) -> list[bytes]:
    came: list[bytes] = []
    until = time.monotonic() + 30
    while len(came) < count and time.monotonic() < until:
        came += channel.receive(expected, 1.0)
    return came


def usage(channels: list[ObjectChannel]) -> Usage:
    return sum((channel.meter.snapshot() for channel in channels), start=Usage())


def use_everything(channels: list[ObjectChannel]) -> None:
    workers = len(channels)
    for layer in range(3):
        for rank, channel in enumerate(channels):
            others = [target for target in range(workers) if target != rank]
            frames = [data(bytes([rank, layer]), *others, layer=layer)]
            frames += [data(bytes([rank, layer, target]) * 500, target, layer=layer) for target in others]
            channel.send(frames).result(30)
        for rank, channel in enumerate(channels):
            expected = wants(*(source for source in range(workers) if source != rank), layer=layer)
            assert len(collect(channel, expected, 2 * (workers - 1))) == 2 * (workers - 1)
    for channel in channels:
        assert channel.receive(wants(0 if channel is not channels[0] else 1, layer=3), 0.0) == []
    channels[1].abort(Frame(Kind.ABORT, 0, 0, (0, 1, 2), b"abort"))
    for channel in channels:
        assert collect(channel, wants(2, layer=4), 1) == [b"abort"]


def test_counts_equal_the_proxys(open_channels: Open, proxy: FaultProxy) -> None:
    channels = open_channels(3, ObjectSettings(abort_every_s=0.05))
    use_everything(channels)
    total = usage(channels)
    assert dict(total.requests) == dict(proxy.counts)
    assert total.requests["s3.put"] == 3 * 3 + 1
    assert total.requests["s3.get"] == 3 * 6 + 3 + total.misses
    assert (total.retries, total.frames) == (0, 9 * 3 + 1)


@pytest.mark.parametrize(
    "fault", [Fault(status=503), Fault(status=500, code="InternalError"), Fault(reset=True)], ids=str
)
def test_counts_equal_the_proxys_when_requests_are_retried(
    open_channels: Open, proxy: FaultProxy, fault: Fault
) -> None:
    channels = open_channels(3, ObjectSettings(abort_every_s=0.05))
    proxy.hook = lambda request: fault if request.number % 5 == 0 else None
    use_everything(channels)
    total = usage(channels)
    assert dict(total.requests) == dict(proxy.counts)
    assert total.retries >= sum(count // 5 for count in proxy.counts.values())


def test_an_object_is_read_with_one_request_and_a_long_one_with_two(open_channels: Open, proxy: FaultProxy) -> None:
    channels = open_channels(3, ObjectSettings(first_bytes=1000, abort_every_s=60))
    frames = [data(b"near" * 10, 1, 2), data(b"far" * 1000, 2), data(b"farther" * 1000, 2)]
    channels[0].send(frames).result(30)
    assert channels[1].receive(wants(0), 5) == [b"near" * 10]
    assert proxy.counts["s3.get"] == 1
    assert channels[2].receive(wants(0), 5) == [frame.body for frame in frames]
    assert proxy.counts["s3.get"] == 3
    assert channels[2].receive(wants(0), 0.05) == []
    assert proxy.counts["s3.get"] == 3, "an object that was read is not read again"


@pytest.mark.parametrize("first_bytes", [16, 17, 40, 60, 61, 62, 75, 80, 1000])
def test_any_number_of_first_bytes_will_do(open_channels: Open, first_bytes: int) -> None:
    channels = open_channels(3, ObjectSettings(first_bytes=first_bytes))
    frames = [data(b"first", 1), data(b"second", 1, 2), data(b"third", 1)]
    channels[0].send(frames).result(30)
    assert channels[1].receive(wants(0), 5) == [b"first", b"second", b"third"]
    assert channels[2].receive(wants(0), 5) == [b"second"]


def test_only_the_source_expected_last_is_polled(open_channels: Open, proxy: FaultProxy) -> None:
    channels = open_channels(4, ObjectSettings(abort_every_s=60))
    asked: list[str] = []
    proxy.hook = lambda request: asked.append(request.path) if request.kind == "s3.get" else None
    for source in (1, 2):
        channels[source].send([data(bytes([source]), 0)]).result(30)
    assert channels[0].receive(wants(1, 2, 3), 0.2) == []
    assert asked
    assert all("data-0-0-3" in path for path in asked)
    polls = len(asked)
    threading.Timer(0.1, lambda: channels[3].send([data(b"\3", 0)])).start()
    assert sorted(collect(channels[0], wants(1, 2, 3), 3)) == [b"\1", b"\2", b"\3"]
    assert {path.split("/")[-1] for path in asked[polls:-2]} == {"data-0-0-3"}
    assert {path.split("/")[-1] for path in asked[-2:]} == {"data-0-0-1", "data-0-0-2"}


def test_refusal_is_an_error_that_hints_at_listing(open_channels: Open, proxy: FaultProxy) -> None:
    channels = open_channels(2)
    proxy.hook = lambda request: Fault(status=403, code="AccessDenied")
    with pytest.raises(ChannelError, match="ListBucket") as receiving:
        channels[0].receive(wants(1), 1)
    with pytest.raises(ChannelError, match="cannot send") as sending:
        channels[0].send([data(b"x", 1)]).result(30)
    with pytest.raises(ChannelError, match="cannot abort"):
        channels[0].abort(Frame(Kind.ABORT, 0, 0, (0, 1), b"x"))
    assert not receiving.value.retryable
    assert not sending.value.retryable


def test_a_read_that_fails_loses_nothing_that_was_read_beside_it(open_channels: Open, proxy: FaultProxy) -> None:
    channels = open_channels(3)
    for source in (1, 2):
        channels[source].send([data(bytes([source]), 0)]).result(30)
    proxy.hook = lambda request: Fault(status=503) if "data-0-0-1" in request.path else None
    with pytest.raises(ChannelError, match="data-0-0-1") as caught:
        channels[0].receive(wants(1, 2), 1)
    assert caught.value.retryable
    proxy.hook = None
    assert sorted(collect(channels[0], wants(1, 2), 2)) == [b"\1", b"\2"]


def test_attempts_do_not_see_each_other_and_a_sweep_takes_both(open_channels: Open) -> None:
    first, second = open_channels(2, attempt=1), open_channels(2, attempt=2)
    first[0].send([data(b"first", 1)]).result(30)
    first[0].abort(Frame(Kind.ABORT, 0, 0, (0, 1), b"abort"))
    assert second[1].receive(wants(0), 0.1) == []
    second[0].send([data(b"second", 1)]).result(30)
    assert second[1].receive(wants(0), 5) == [b"second"]
    stores = first[0]._stores
    assert sum(len(list(store.list(""))) for store in stores) == 3
    sweep(stores, "another")
    assert sum(len(list(store.list(""))) for store in stores) == 3
    sweep(stores, "run")
    assert sum(len(list(store.list(""))) for store in stores) == 0


def test_what_no_channel_wrote_is_an_error(open_channels: Open) -> None:
    channels = open_channels(2)
    store, key = channels[0]._place("data-0-0-0")
    store.put(key, b"something else altogether")
    with pytest.raises(ChannelError, match="not one that a channel wrote"):
        channels[1].receive(wants(0), 1)
    channels[0].send([data(b"not for 1", 0)]).result(30)
    with pytest.raises(ChannelError, match="nothing for rank 1"):
        channels[1].receive(wants(0), 1)
    channels[0].send([data(b"cut off" * 10, 1)]).result(30)
    whole = store.get(key)
    assert whole is not None
    store.put(key, whole[:-1])
    with pytest.raises(ChannelError, match="ends before its last part"):
        channels[1].receive(wants(0), 1)
