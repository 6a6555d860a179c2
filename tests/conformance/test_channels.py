"""Conformance tests of the channel contract, run for every channel and wrapper."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fsd_inference.aws.clients import Clients
from fsd_inference.channels.base import Channel, Expected, Frame, Kind, Limits
from fsd_inference.channels.delayed import Delayed
from fsd_inference.channels.in_process import InProcessHub
from fsd_inference.channels.local import LocalChannel
from fsd_inference.channels.object import ObjectChannel, ObjectSettings
from fsd_inference.errors import ChannelError, LimitError
from fsd_inference.store.base import Store
from fsd_inference.store.bucket import Credentials
from fsd_inference.store.directory import DirectoryStore
from fsd_inference.store.s3 import S3Store
from fsd_inference.usage import UsageMeter
from tests.support.channels.faulty import Faults, Faulty
from tests.support.channels.metered import Metered
from tests.support.lane import Lane

FRAME_BYTES = 190_000
"""A frame that every channel takes."""

STRAY = b"a frame of an older attempt"

Open = Callable[..., dict[int, Channel]]
Opener = Callable[[pytest.FixtureRequest, int, Sequence[int]], dict[int, Channel]]


def open_in_process(request: pytest.FixtureRequest, workers: int, ranks: Sequence[int]) -> dict[int, Channel]:
    hub = InProcessHub(workers, limits=Limits(FRAME_BYTES, 100, 1 << 30))
    return {rank: hub.channel(rank) for rank in ranks}


def open_local(request: pytest.FixtureRequest, workers: int, ranks: Sequence[int]) -> dict[int, Channel]:
    directory: Path = request.getfixturevalue("tmp_path")
    limits = Limits(FRAME_BYTES, 100, 1 << 30)
    return {rank: LocalChannel(directory, rank, workers, limits=limits) for rank in ranks}


def open_queue(request: pytest.FixtureRequest, workers: int, ranks: Sequence[int]) -> dict[int, Channel]:
    clients: Clients = request.getfixturevalue("queue_clients")
    lane = Lane.make(clients, workers, ranks)
    return {rank: lane.channel(clients, rank) for rank in ranks}


def object_channels(stores: Sequence[Store], workers: int, ranks: Sequence[int]) -> dict[int, Channel]:
    settings = ObjectSettings(abort_every_s=0.1)
    return {
        rank: ObjectChannel(stores, run="run", attempt=1, rank=rank, workers=workers, settings=settings)
        for rank in ranks
    }


def open_object(request: pytest.FixtureRequest, workers: int, ranks: Sequence[int]) -> dict[int, Channel]:
    directory: Path = request.getfixturevalue("tmp_path")
    channels: dict[int, Channel] = {}
    for rank in ranks:
        meter = UsageMeter()
        stores = [DirectoryStore(directory / f"bucket-{number}", meter=meter) for number in range(3)]
        channels |= object_channels(stores, workers, [rank])
    return channels


def open_object_s3(request: pytest.FixtureRequest, workers: int, ranks: Sequence[int]) -> dict[int, Channel]:
    endpoint_url: str = request.getfixturevalue("emulator_url")
    buckets = [request.getfixturevalue("new_bucket")() for _ in range(2)]
    channels: dict[int, Channel] = {}
    for rank in ranks:
        meter = UsageMeter()
        stores = [
            S3Store(
                bucket,
                endpoint_url=endpoint_url,
                region="us-east-1",
                credentials=Credentials("test", "test"),
                meter=meter,
            )
            for bucket in buckets
        ]
        for store in stores:
            request.addfinalizer(store.close)
        channels |= object_channels(stores, workers, [rank])
    return channels


def wrapped(wrap: Callable[[Channel], Channel], open_inner: Opener = open_in_process) -> Opener:
    def opener(request: pytest.FixtureRequest, workers: int, ranks: Sequence[int]) -> dict[int, Channel]:
        return {rank: wrap(channel) for rank, channel in open_inner(request, workers, ranks).items()}

    return opener


def delayed(inner: Channel) -> Channel:
    return Delayed(inner, send_s=0.01, deliver_s=0.01, jitter=0.5)


def faulty(inner: Channel) -> Channel:
    faults = Faults(duplicate=0.3, stray=0.3, reorder=True, inject=0.2, foreign=(STRAY,), slow_read_s=0.001)
    return Faulty(inner, faults)


OPENERS: dict[str, Opener] = {
    "in process": open_in_process,
    "local": open_local,
    "metered": wrapped(Metered),
    "delayed": wrapped(delayed),
    "faulty": wrapped(faulty),
    "object": open_object,
    "queue": open_queue,
    "object on s3": open_object_s3,
    "metered faulty delayed queue": wrapped(lambda inner: Metered(faulty(delayed(inner))), open_queue),
}


@pytest.fixture(
    params=[pytest.param(name, marks=[pytest.mark.emulator] * name.endswith(("queue", "s3"))) for name in OPENERS]
)
def open_channels(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Return a function that opens channels of an attempt with so many workers: all ranks, or those asked for."""
    opened: list[Channel] = []

    def opener(workers: int, ranks: Sequence[int] | None = None) -> dict[int, Channel]:
        channels = OPENERS[request.param](request, workers, ranks or range(workers))
        opened.extend(channels.values())
        return channels

    yield opener
    for channel in opened:
        channel.close()


def data(body: bytes, *targets: int, layer: int = 0, micro_batch: int = 0) -> Frame:
    return Frame(Kind.DATA, layer, micro_batch, targets, body)


def wants(*sources: int, layer: int = 0, micro_batch: int = 0) -> list[Expected]:
    return [Expected(Kind.DATA, layer, micro_batch, source) for source in sources]


def collect(channel: Channel, expected: Sequence[Expected], count: int, within_s: float = 30) -> Counter[bytes]:
    """Receive until `count` different bodies have come, strays left out."""
    until = time.monotonic() + within_s
    came: Counter[bytes] = Counter()
    while len(came) < count:
        left = until - time.monotonic()
        assert left > 0, f"{len(came)} of {count} bodies came within {within_s} s"
        came.update(bytes(body) for body in channel.receive(expected, min(left, 1.0)) if body != STRAY)
    return came


def test_one_to_one(open_channels: Open) -> None:
    channels = open_channels(2)
    channels[0].send([data(b"from 0", 1)]).result(30)
    channels[1].send([data(b"from 1", 0)]).result(30)
    assert set(collect(channels[1], wants(0), 1)) == {b"from 0"}
    assert set(collect(channels[0], wants(1), 1)) == {b"from 1"}


def test_one_frame_to_several_ranks_and_each_its_own(open_channels: Open) -> None:
    channels = open_channels(4)
    channels[0].send([data(b"all", 1, 2, 3), data(b"two", 2, 3), data(b"one", 3)]).result(30)
    assert set(collect(channels[1], wants(0), 1)) == {b"all"}
    assert set(collect(channels[2], wants(0), 2)) == {b"all", b"two"}
    assert set(collect(channels[3], wants(0), 3)) == {b"all", b"two", b"one"}


def test_more_than_a_hundred_ranks(open_channels: Open) -> None:
    targets = (1, 99, 100, 204)
    channels = open_channels(205, (0, *targets))
    channels[0].send([data(b"to many", *targets), data(b"to the last", 204)]).result(30)
    for target in targets[:-1]:
        assert set(collect(channels[target], wants(0), 1)) == {b"to many"}
    assert set(collect(channels[204], wants(0), 2)) == {b"to many", b"to the last"}


def test_many_frames_of_any_bytes_arrive_unchanged(open_channels: Open) -> None:
    source = random.Random(5)
    bodies = [source.randbytes(source.choice((1, 2, 3, 1000, 30_000))) for _ in range(40)]
    bodies += [bytes(range(256)), b"\0", b"===", FRAME_BYTES * b"\xff"]
    channels = open_channels(2)
    channels[0].send([data(body, 1) for body in bodies]).result(30)
    assert set(collect(channels[1], wants(0), len(set(bodies)))) == set(bodies)


def test_steps_and_sources_are_kept_apart_by_what_is_expected(open_channels: Open) -> None:
    channels = open_channels(3)
    for layer in range(3):
        for micro_batch in range(2):
            for source in (1, 2):
                body = f"{layer} {micro_batch} {source}".encode()
                channels[source].send([data(body, 0, layer=layer, micro_batch=micro_batch)]).result(30)
    came: set[bytes] = set()
    for layer in range(3):
        for micro_batch in range(2):
            step = {f"{layer} {micro_batch} {source}".encode() for source in (1, 2)}
            while not step <= came:
                came |= set(collect(channels[0], wants(1, 2, layer=layer, micro_batch=micro_batch), 1))
    assert len(came) == 12


def test_the_same_send_twice_is_tolerated(open_channels: Open) -> None:
    channels = open_channels(2)
    for _ in range(2):
        channels[0].send([data(b"twice", 1)]).result(30)
    assert set(collect(channels[1], wants(0), 1)) == {b"twice"}


def test_foreign_bodies_are_carried_for_the_inbox_to_judge(open_channels: Open) -> None:
    channels = open_channels(2)
    channels[0].send([data(b"not a frame at all", 1), data(b"of an older attempt", 1)]).result(30)
    assert set(collect(channels[1], wants(0), 2)) == {b"not a frame at all", b"of an older attempt"}


def test_nothing_there_is_an_empty_list(open_channels: Open) -> None:
    channels = open_channels(2)
    assert set(channels[1].receive(wants(0), 0.0)) <= {STRAY}
    assert set(channels[1].receive(wants(0), 0.05)) <= {STRAY}


def test_sending_nothing_ends_well(open_channels: Open) -> None:
    channels = open_channels(2)
    assert channels[0].send([]).result(30) is None


def test_limits_are_announced_and_enforced(open_channels: Open) -> None:
    channels = open_channels(2)
    limits = channels[0].limits
    assert limits.frame_bytes >= FRAME_BYTES
    assert limits.batch_frames >= 1
    assert limits.batch_bytes >= limits.frame_bytes
    with pytest.raises(LimitError, match=f"accepts {limits.frame_bytes} at most") as caught:
        channels[0].send([data(bytes(limits.frame_bytes + 1), 1)])
    assert not caught.value.retryable
    with pytest.raises(LimitError, match=f"accepts {limits.frame_bytes} at most"):
        channels[0].abort(Frame(Kind.ABORT, 0, 0, (0, 1), bytes(limits.frame_bytes + 1)))
    largest = os.urandom(limits.frame_bytes)
    channels[0].send([data(largest, 1)]).result(30)
    assert set(collect(channels[1], wants(0), 1)) == {largest}


@pytest.mark.parametrize(
    "frames",
    [
        [data(b"", 1)],
        [data(b"x")],
        [data(b"x", 2)],
        [data(b"x", -1)],
        [data(b"x", 1), data(b"x", 1, layer=1)],
    ],
    ids=["no bytes", "no targets", "rank too high", "rank too low", "two steps"],
)
def test_what_makes_no_sense_is_refused(open_channels: Open, frames: list[Frame]) -> None:
    channels = open_channels(2)
    with pytest.raises(ChannelError) as caught:
        channels[0].send(frames).result(30)
    assert not caught.value.retryable


def test_a_rank_that_never_reads_blocks_no_sender(open_channels: Open) -> None:
    channels = open_channels(3)
    bodies = [bytes([i]) * 100_000 for i in range(30)]
    for layer, body in enumerate(bodies):
        channels[0].send([data(body, 1, 2, layer=layer)]).result(30)
    came: set[bytes] = set()
    for layer, body in enumerate(bodies):
        while body not in came:
            came |= set(collect(channels[2], wants(0, layer=layer), 1))
    assert came == set(bodies)


def test_an_abort_reaches_all_ranks(open_channels: Open) -> None:
    channels = open_channels(3)
    abort = Frame(Kind.ABORT, 0, 0, (0, 1, 2), b"rank 1 failed")
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(collect, channels[rank], wants((rank + 1) % 3, layer=7), 1) for rank in range(3)]
        time.sleep(0.05)
        channels[1].abort(abort)
        for future in waiting:
            assert set(future.result(30)) == {b"rank 1 failed"}


def test_close_wakes_who_waits_and_stops_all_threads(open_channels: Open) -> None:
    before = set(threading.enumerate())
    channels = open_channels(2)
    channels[0].send([data(b"x", 1)]).result(30)
    collect(channels[1], wants(0), 1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(channels[1].receive, wants(0, layer=1), 2.0)
        time.sleep(0.05)
        for channel in channels.values():
            channel.close()
            channel.close()
        try:
            assert set(waiting.result(30)) <= {b"x", STRAY}
        except ChannelError as error:
            assert "closed" in str(error)  # noqa: PT017 - both ends are fine
    for channel in channels.values():
        with pytest.raises(ChannelError, match="closed"):
            channel.send([data(b"y", 0)]).result(30)
        with pytest.raises(ChannelError, match="closed"):
            channel.receive(wants(0), 0.0)
        with pytest.raises(ChannelError, match="closed"):
            channel.abort(Frame(Kind.ABORT, 0, 0, (0, 1), b"abort"))
    assert {thread for thread in threading.enumerate() if thread.is_alive()} <= before


def test_several_threads_send_and_receive_at_once(open_channels: Open) -> None:
    channels = open_channels(3)
    steps = range(20)

    def send(source: int, layer: int) -> None:
        channels[source].send([data(f"{source} {layer} {i}".encode(), 0, layer=layer) for i in range(3)]).result(30)

    wanted = {f"{source} {layer} {i}".encode() for source in (1, 2) for layer in steps for i in range(3)}
    came: set[bytes] = set()
    until = time.monotonic() + 60

    def receive() -> None:
        while not wanted <= came:
            assert time.monotonic() < until
            missing = {(int(body.split()[1]), int(body.split()[0])) for body in wanted - came}
            expected = [Expected(Kind.DATA, layer, 0, source) for layer, source in sorted(missing)]
            came.update(bytes(body) for body in channels[0].receive(expected, 0.2) if body != STRAY)

    with ThreadPoolExecutor(6) as pool:
        receivers = [pool.submit(receive) for _ in range(2)]
        senders = [pool.submit(send, source, layer) for layer in steps for source in (1, 2)]
        for future in (*senders, *receivers):
            future.result(90)
    assert came == wanted


def test_usage_counts_frames_and_bytes(open_channels: Open) -> None:
    channels = open_channels(3)
    channels[0].send([data(bytes(1000), 1, 2), data(bytes(500), 2)]).result(30)
    collect(channels[2], wants(0), 2)
    sent, received = channels[0].meter.snapshot(), channels[2].meter.snapshot()
    assert (sent.frames, sent.wire_bytes) == (2, 1500)
    assert sent.body_bytes >= sent.wire_bytes
    assert received.received_bytes >= 1500
