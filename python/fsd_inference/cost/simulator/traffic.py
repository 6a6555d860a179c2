"""What each rank sends after a layer, as the channels pack it: batches of messages, or objects with their readers.

The same as `cost.frames` says frame by frame, in arrays: a thousand ranks send millions of frames.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fsd_inference.cost.frames import UNIT_BYTES, ChannelLimits, FrameSize, extra_reads
from fsd_inference.partition.plan import Edge

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

HEADER_BYTES, TARGET_BYTES = 73, 2  # of a frame, and of each target in it (rust_kernels/core/src/frame.rs)
_INDEX_BYTES, _ENTRY_BYTES, _ENTRY_TARGET_BYTES = 16, 12, 4  # of an object of frames (channels/parts.py)
_BATCH_ENTRIES = 10  # PublishBatch (SNS API)


class Batch(NamedTuple):
    """One PublishBatch: topic, bytes in base64 with attributes, messages, units both ways, deliveries from and to."""

    topic: int
    size: float
    messages: int
    units: int
    message_units: int
    first: int
    last: int


class Reader(NamedTuple):
    """What one target reads of an object."""

    target: int
    edges: tuple[tuple[int, int], ...]  # (source, edge)
    size: float
    reads: int  # requests


class Delivery(NamedTuple):
    """A message on its way to one rank: its (source, edge) and the bytes of its body."""

    target: int
    edge: tuple[int, int]
    size: float


class Sent(NamedTuple):
    """What one rank sends after one layer of one micro-batch; either batches, or an object with its readers."""

    frames: int
    wire_bytes: float
    body_bytes: float
    batches: tuple[Batch, ...]
    readers: tuple[Reader, ...]


@dataclass(frozen=True, slots=True)
class Exchange:
    """One exchange's edges in arrays: source, number among the source's edges, and how many targets they have."""

    sources: Ints
    numbers: Ints
    places: list[tuple[int, int]]  # (source, number)
    fan: Ints
    targets: Ints

    @classmethod
    def of(cls, edges: tuple[Edge, ...]) -> Exchange:
        """Put a plan's exchange into arrays."""
        sources = np.fromiter((edge.source for edge in edges), np.int64, len(edges))
        fan = np.fromiter((len(edge.targets) for edge in edges), np.int64, len(edges))
        targets = np.fromiter(chain.from_iterable(edge.targets for edge in edges), np.int64, int(fan.sum()))
        numbers = np.arange(len(edges)) - _starts(sources)
        return cls(sources, numbers, list(zip(sources.tolist(), numbers.tolist(), strict=True)), fan, targets)


@dataclass(frozen=True, slots=True)
class _Frames:
    """Frames of one step of all ranks, and their (frame, target) pairs."""

    edge: Ints
    size: Floats
    pair_frame: Ints
    pair_target: Ints


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What all ranks send of one step.

    Attributes
    ----------
    sent : dict of int to Sent
        By source.
    places : list of (source, number)
        Of the exchange's edges.
    sources, targets, edges : ndarray of int64
        From and to which rank each delivery is, and the edge (of the exchange): batch by batch; over objects, reader
        by reader. Sources ascend.
    sizes : ndarray of float64
        Bytes of each delivery's body.
    """

    sent: dict[int, Sent]
    places: list[tuple[int, int]]
    sources: Ints
    targets: Ints
    edges: Ints
    sizes: Floats

    def deliveries(self, batch: Batch) -> list[Delivery]:
        """Return what a batch brings to whom."""
        part = slice(batch.first, batch.last)
        places = (self.places[edge] for edge in self.edges[part].tolist())
        return [*map(Delivery, self.targets[part].tolist(), places, self.sizes[part].tolist())]


NOTHING = Outgoing({}, [], np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


def queue_step(exchange: Exchange, payloads: Floats, limits: ChannelLimits) -> Outgoing:
    """Return what each rank publishes of one step, `payloads` being the bytes of each edge's rows."""
    frames = _frames(exchange, payloads, limits.queue_frame_bytes)
    if not frames.edge.size:
        return NOTHING
    source = exchange.sources[frames.edge]
    texts = np.ceil(frames.size * 4 / 3)
    # A frame is one message in each topic that some of its targets listen to.
    topic_of_pair = frames.pair_target // limits.ranks_a_topic
    begins = _changes(frames.pair_frame, topic_of_pair)
    message = np.cumsum(begins) - 1
    frame_of, topic_of = frames.pair_frame[begins], topic_of_pair[begins]
    named = np.bincount(message, weights=_digits(frames.pair_target) + len('"", '))
    attributes = named.astype(np.float64) + len("toString.Array")
    sizes: Floats = texts[frame_of] + attributes
    batch_of = _batches(source[frame_of], topic_of, sizes, limits.message_bytes)
    order = np.argsort(batch_of[message], kind="stable")
    first = np.searchsorted(batch_of[message][order], np.arange(batch_of.max() + 2)).tolist()
    each = np.bincount(batch_of)
    total: Floats = np.bincount(batch_of, weights=sizes).astype(np.float64)
    message_units = np.bincount(batch_of, weights=_units(sizes)).astype(np.int64)
    of_batch = np.zeros((2, each.size), np.int64)
    of_batch[:, batch_of] = source[frame_of], topic_of
    batches = [
        Batch(topic, size, count, units, apart, first[number], first[number + 1])
        for number, (topic, size, count, units, apart) in enumerate(
            zip(
                of_batch[1].tolist(),
                total.tolist(),
                each.tolist(),
                _units(total).tolist(),
                message_units.tolist(),
                strict=True,
            )
        )
    ]
    sent = {}
    # Edges, and so frames and batches, ascend by source.
    for (rank, start, end), (_, begin, stop) in zip(_groups(source), _groups(of_batch[0]), strict=True):
        sizes_of = float(frames.size[start:end].sum()), float(texts[start:end].sum())
        sent[rank] = Sent(end - start, *sizes_of, tuple(batches[begin:stop]), ())
    frame = frames.pair_frame[order]
    edge = frames.edge[frame]
    return Outgoing(sent, exchange.places, exchange.sources[edge], frames.pair_target[order], edge, texts[frame])


def object_step(exchange: Exchange, payloads: Floats, limits: ChannelLimits) -> Outgoing:
    """Return the object that each rank writes of one step, and who reads what of it."""
    frames = _frames(exchange, payloads, limits.object_frame_bytes)
    if not frames.edge.size:
        return NOTHING
    source = exchange.sources[frames.edge]
    pair_source = source[frames.pair_frame]
    order = np.lexsort((frames.pair_frame, frames.pair_target, pair_source))
    edges = [exchange.places[edge] for edge in frames.edge[frames.pair_frame[order]].tolist()]
    sizes = frames.size[frames.pair_frame[order]]
    of_reader = _groups(pair_source[order] * (1 << 32) + frames.pair_target[order])
    readers: dict[int, list[Reader]] = {}
    for key, start, end in of_reader:
        rank, target = key >> 32, key & 0xFFFFFFFF
        readers.setdefault(rank, []).append(
            Reader(target, tuple(dict.fromkeys(edges[start:end])), float(sizes[start:end].sum()), 1)
        )
    sent = {}
    for rank, start, end in _groups(source):
        size = float(frames.size[start:end].sum())
        mine = readers[rank]
        if size + _INDEX_BYTES + (end - start) * (_ENTRY_BYTES + _ENTRY_TARGET_BYTES) > limits.first_bytes:
            # Parts beyond the first read: rare, so frame by frame.
            of_frame: dict[int, list[int]] = {}
            for frame, target in zip(frames.pair_frame.tolist(), frames.pair_target.tolist(), strict=True):
                if start <= frame < end:
                    of_frame.setdefault(frame, []).append(target)
            cut = [FrameSize(tuple(of_frame[frame]), float(frames.size[frame])) for frame in range(start, end)]
            mine = [each._replace(reads=1 + extra_reads(cut, each.target, limits.first_bytes)) for each in mine]
        sent[rank] = Sent(end - start, size, size, (), tuple(mine))
    frame = frames.pair_frame[order]
    edge = frames.edge[frame]
    return Outgoing(sent, exchange.places, exchange.sources[edge], frames.pair_target[order], edge, sizes)


def sent_between(edges: tuple[Edge, ...], payloads: Floats, frame_bytes: int, workers: int) -> Floats:
    """Return frames and their bytes of one exchange, all micro-batches: 2 x sources x targets."""
    found = np.zeros((2, workers, workers))
    exchange = Exchange.of(edges)
    for sizes in payloads.T:
        frames = _frames(exchange, sizes, frame_bytes)
        pairs = exchange.sources[frames.edge[frames.pair_frame]], frames.pair_target
        np.add.at(found[0], pairs, 1)
        np.add.at(found[1], pairs, frames.size[frames.pair_frame])
    return found


def control_traffic(source: int, target: int, size: float, limits: ChannelLimits, *, queue: bool) -> Outgoing:
    """Return the single frame by which a rank tells its parent that its subtree is done."""
    wire = size + HEADER_BYTES + TARGET_BYTES
    place, edge = (source, 0), np.zeros(1, np.int64)
    here, there = np.array([source]), np.array([target])
    if not queue:
        written = Sent(1, wire, wire, (), (Reader(target, (place,), wire, 1),))
        return Outgoing({source: written}, [place], here, there, edge, np.array([wire]))
    text = float(np.ceil(wire * 4 / 3))
    whole = text + len("toString.Array") + len(str(target)) + len('"", ')
    units = int(_units(np.array([whole]))[0])
    batch = Batch(target // limits.ranks_a_topic, whole, 1, units, units, 0, 1)
    published = Sent(1, wire, text, (batch,), ())
    return Outgoing({source: published}, [place], here, there, edge, np.array([text]))


def _frames(exchange: Exchange, payloads: Floats, frame_bytes: int) -> _Frames:
    """Cut each edge's payload into frames, none longer than `frame_bytes`."""
    header = HEADER_BYTES + TARGET_BYTES * exchange.fan
    room = frame_bytes - header
    whole, rest = np.divmod(payloads, room)
    parts = (whole + ((rest > 0) | (whole == 0))).astype(np.int64)
    edge = np.repeat(np.arange(parts.size), parts)
    is_last = _changes(edge[::-1])[::-1]
    last = np.where((rest > 0) | (whole == 0), rest, room)
    size = header[edge] + np.where(is_last, last[edge], room[edge])
    fan = exchange.fan[edge]
    pair_frame = np.repeat(np.arange(edge.size), fan)
    within = np.arange(pair_frame.size) - np.repeat(np.cumsum(fan) - fan, fan)
    start = np.cumsum(exchange.fan) - exchange.fan
    return _Frames(edge, size, pair_frame, exchange.targets[start[edge][pair_frame] + within])


def _batches(source: Ints, topic: Ints, sizes: Floats, batch_bytes: int) -> Ints:
    """Return the batch of each message: the first that has room, largest messages first; batches ascend by source."""
    order = np.lexsort((-sizes, topic, source))
    begins = _changes(source[order], topic[order])
    group = np.cumsum(begins) - 1
    place = np.arange(order.size) - np.flatnonzero(begins)[group]
    starts = begins | (place % _BATCH_ENTRIES == 0)
    tens = np.cumsum(starts) - 1
    if (np.bincount(tens, weights=sizes[order]) > batch_bytes).any():
        tens = _first_fit(group, sizes[order], batch_bytes)
    found = np.empty_like(tens)
    found[order] = tens
    return found


def _first_fit(group: Ints, sizes: Floats, batch_bytes: int) -> Ints:
    found, base = np.zeros(group.size, np.int64), 0
    for _, start, end in _groups(group):
        batches: list[tuple[int, float]] = []
        for message in range(start, end):
            size = float(sizes[message])
            fits = (
                n for n, (count, full) in enumerate(batches) if count < _BATCH_ENTRIES and full + size <= batch_bytes
            )
            number = next(fits, len(batches))
            if number == len(batches):
                batches.append((0, 0.0))
            count, full = batches[number]
            batches[number] = (count + 1, full + size)
            found[message] = base + number
        base += len(batches)
    return found


def _units(sizes: Floats) -> Ints:
    return np.maximum(1, np.ceil(sizes / UNIT_BYTES)).astype(np.int64)


def _digits(numbers: Ints) -> Ints:
    return np.searchsorted(10 ** np.arange(1, 10), numbers, side="right") + 1


def _changes(*keys: Ints) -> NDArray[np.bool_]:
    """Return where a run of equal keys begins."""
    found = np.zeros(keys[0].size, np.bool_)
    found[:1] = True
    for key in keys:
        found[1:] |= key[1:] != key[:-1]
    return found


def _starts(keys: Ints) -> Ints:
    """Return, of each entry, where its run of equal keys begins."""
    begins = _changes(keys)
    return np.flatnonzero(begins)[np.cumsum(begins) - 1] if keys.size else keys


def _groups(keys: Ints) -> Iterable[tuple[int, int, int]]:
    """Return the runs of equal keys: (key, from, to)."""
    starts = np.flatnonzero(_changes(keys))
    ends = [*starts[1:].tolist(), keys.size]
    return list(zip(keys[starts].tolist(), starts.tolist(), ends, strict=True))
