"""Predicted frames and requests of an exchange: what each rank sends after a layer, packed as the channels pack it.

All ranks of a step are computed at once in NumPy arrays, because a thousand ranks send millions of frames.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fsd_inference.limits import (
    BATCH_ENTRIES,
    CONTROL_BYTES,
    FIRST_READ_BYTES,
    FRAME_HEADER_BYTES,
    LONGEST_POLL_S,
    MESSAGE_BYTES,
    NEIGHBOUR_BYTES,
    OBJECT_ENTRY,
    OBJECT_FRAME_BYTES,
    OBJECT_HEADER,
    OBJECT_TARGET,
    RANKS_PER_TOPIC,
    TARGETS_ATTRIBUTE_BYTES,
    UNIT_BYTES,
)
from fsd_inference.packing import first_fit
from fsd_inference.partitioning.plan import Edge

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_INDEX_BYTES, _ENTRY_BYTES, _ENTRY_TARGET_BYTES = map(struct.calcsize, (OBJECT_HEADER, OBJECT_ENTRY, OBJECT_TARGET))


@dataclass(frozen=True, slots=True)
class ChannelLimits:
    """Size limits and poll times of the channels; defaults as in channels/queue.py and channels/object.py.

    Attributes
    ----------
    message_bytes : int
        Maximum bytes of an SNS message, and of a batch, attributes included.
    attribute_bytes : int
        Bytes of a message that are reserved for the attribute with the targets.
    object_frame_bytes : int
        Maximum bytes of a frame over `object`.
    first_bytes : int
        Bytes that the first read of an object requests.
    poll_s : float
        Long-poll time of a receive in seconds; a wait of this length is an empty poll.
    ranks_a_topic : int
        Maximum number of ranks that one topic serves.
    """

    message_bytes: int = MESSAGE_BYTES
    attribute_bytes: int = TARGETS_ATTRIBUTE_BYTES
    object_frame_bytes: int = OBJECT_FRAME_BYTES
    first_bytes: int = FIRST_READ_BYTES
    poll_s: float = LONGEST_POLL_S
    ranks_a_topic: int = RANKS_PER_TOPIC

    @property
    def queue_frame_bytes(self) -> int:
        """Maximum bytes of a frame over `queue`, before base64."""
        return (self.message_bytes - self.attribute_bytes) * 3 // 4


class Batch(NamedTuple):
    """One PublishBatch request."""

    topic: int
    size: float  # bytes in base64, with attributes
    messages: int
    units: int  # billed 64 KiB units if the batch's size is rounded up
    message_units: int  # billed 64 KiB units if each message's size is rounded up
    first: int  # its deliveries in `Outgoing` are first..last, the end excluded
    last: int


class Reader(NamedTuple):
    """The part of an object that one target reads."""

    target: int
    edges: tuple[tuple[int, int], ...]  # (source, edge number)
    frames: int
    size: float  # bytes
    reads: int  # GET requests


class Sent(NamedTuple):
    """What one rank sends after one layer of one micro-batch, as batches of messages or as one object."""

    frames: int
    wire_bytes: float  # frames with their headers
    body_bytes: float  # request bodies, after base64
    batches: tuple[Batch, ...]  # empty over objects
    first: int  # its deliveries in `Outgoing` are first..last, the end excluded
    last: int


@dataclass(frozen=True, slots=True)
class EdgeArrays:
    """The edges of one exchange as arrays, one entry an edge."""

    sources: Ints
    numbers: Ints  # position among the edges of the same source
    places: list[tuple[int, int]]  # (source, number)
    fan: Ints  # number of targets
    targets: Ints  # the targets of all edges, edge after edge
    header: Ints  # bytes of a frame without its payload

    @classmethod
    def of(cls, edges: tuple[Edge, ...]) -> EdgeArrays:
        """Return the arrays of one of a plan's exchanges."""
        sources = np.array([edge.source for edge in edges], np.int64)
        fan = np.array([len(edge.targets) for edge in edges], np.int64)
        targets = np.array(list(chain.from_iterable([edge.targets for edge in edges])), np.int64)
        numbers = np.arange(len(edges)) - _starts(sources)
        header = FRAME_HEADER_BYTES + _varint_bytes(sources) + _varint_bytes(numbers) + _varint_bytes(fan)
        np.add.at(header, np.repeat(np.arange(fan.size), fan), _varint_bytes(targets))
        return cls(sources, numbers, list(zip(sources.tolist(), numbers.tolist(), strict=True)), fan, targets, header)

    def received(self, payloads: Floats, workers: int) -> Floats:
        """Return the payload bytes that each rank receives, workers x micro-batches."""
        found = np.zeros((workers, payloads.shape[1]))
        np.add.at(found, self.targets, np.repeat(payloads, self.fan, axis=0))
        return found


@dataclass(frozen=True, slots=True)
class _Frames:
    """The frames that all ranks send in one step, and the (frame, target) pairs of their deliveries."""

    edge: Ints  # edge of each frame
    size: Floats  # bytes of each frame with its header
    pair_frame: Ints
    pair_target: Ints


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What all ranks send in one step.

    Attributes
    ----------
    sent : dict of int to Sent
        Totals by sending rank.
    places : list of (source, number)
        Source and edge number of each edge of the exchange.
    sources, targets, edges : ndarray of int64
        Sending rank, receiving rank and edge (its index in the exchange) of each delivery, sorted by source, then by
        batch; over objects by source, then by target.
    sizes : ndarray of float64
        Bytes of each delivery's body.
    beyond : dict of (source, target) to int
        Over objects, the reads that a target needs after its first; pairs that need none are absent.
    """

    sent: dict[int, Sent]
    places: list[tuple[int, int]]
    sources: Ints
    targets: Ints
    edges: Ints
    sizes: Floats
    beyond: dict[tuple[int, int], int]

    def readers(self, source: int) -> list[Reader]:
        """Return, for each target, the part of a source's object that it reads."""
        sent = self.sent[source]
        part = slice(sent.first, sent.last)
        edges = [self.places[edge] for edge in self.edges[part].tolist()]
        sizes = self.sizes[part]
        return [
            Reader(
                target,
                tuple(dict.fromkeys(edges[start:end])),
                end - start,
                float(sizes[start:end].sum()),
                1 + self.beyond.get((source, target), 0),
            )
            for target, start, end in _groups(self.targets[part])
        ]


NOTHING = Outgoing({}, [], np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), {})


def step_frames(exchange: EdgeArrays, payloads: Floats, limits: ChannelLimits, *, queue: bool) -> Outgoing:
    """Return what all ranks send in one step.

    Parameters
    ----------
    exchange : EdgeArrays
    payloads : ndarray of float64, edges
        Bytes of each edge's rows for one micro-batch.
    limits : ChannelLimits
    queue : bool
        True to send batches of messages over `queue`, False to send objects.
    """
    return queue_step(exchange, payloads, limits) if queue else object_step(exchange, payloads, limits)


def queue_step(exchange: EdgeArrays, payloads: Floats, limits: ChannelLimits) -> Outgoing:
    """Return the batches that each rank publishes in one step; parameters as for `step_frames`."""
    frames = _frames(exchange, payloads, limits.queue_frame_bytes)
    if not frames.edge.size:
        return NOTHING
    source = exchange.sources[frames.edge]
    texts = np.ceil(frames.size * 4 / 3)
    # A frame becomes one message in each topic to which any of its targets is subscribed.
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
        sent[rank] = Sent(end - start, *sizes_of, tuple(batches[begin:stop]), first[begin], first[stop])
    frame = frames.pair_frame[order]
    edge = frames.edge[frame]
    return Outgoing(sent, exchange.places, exchange.sources[edge], frames.pair_target[order], edge, texts[frame], {})


def object_step(exchange: EdgeArrays, payloads: Floats, limits: ChannelLimits) -> Outgoing:
    """Return the object that each rank writes in one step, and what its targets read; parameters as `step_frames`."""
    frames = _frames(exchange, payloads, limits.object_frame_bytes)
    if not frames.edge.size:
        return NOTHING
    source = exchange.sources[frames.edge]
    order = np.argsort((source[frames.pair_frame] << 32) + frames.pair_target, kind="stable")
    frame = frames.pair_frame[order]
    edge = frames.edge[frame]
    pair_source = exchange.sources[edge]
    sent: dict[int, Sent] = {}
    beyond: dict[tuple[int, int], int] = {}
    for (rank, start, end), (_, first, last) in zip(_groups(source), _groups(pair_source), strict=True):
        size = float(frames.size[start:end].sum())
        sent[rank] = Sent(end - start, size, size, (), first, last)
        index = _INDEX_BYTES + (end - start) * _ENTRY_BYTES + (last - first) * _ENTRY_TARGET_BYTES
        if index + size > limits.first_bytes:
            beyond |= _beyond(frames, rank, start, end, limits.first_bytes)
    return Outgoing(sent, exchange.places, pair_source, frames.pair_target[order], edge, frames.size[frame], beyond)


def _beyond(frames: _Frames, rank: int, start: int, end: int, first_bytes: int) -> dict[tuple[int, int], int]:
    """Return the extra reads, by (source, target), of a large object; these are rare, so a loop over frames will do."""
    targets: dict[int, list[int]] = {}
    for frame, target in zip(frames.pair_frame.tolist(), frames.pair_target.tolist(), strict=True):
        if start <= frame < end:
            targets.setdefault(frame, []).append(target)
    cut = [(targets[frame], float(frames.size[frame])) for frame in range(start, end)]
    readers = {target for of_frame, _ in cut for target in of_frame}
    found = {(rank, target): _extra_reads(cut, target, first_bytes) for target in readers}
    return {pair: reads for pair, reads in found.items() if reads}


def _extra_reads(frames: Sequence[tuple[Sequence[int], float]], target: int, first_bytes: int) -> int:
    """Return the number of reads after the first that `target` needs of an object; frames are (targets, bytes)."""
    start = _INDEX_BYTES + sum(_ENTRY_BYTES + _ENTRY_TARGET_BYTES * len(targets) for targets, _ in frames)
    reads = int(start > first_bytes)
    read_until = max(float(first_bytes), start)
    end = -np.inf  # of the current range, to which near frames are joined
    position = float(start)
    for targets, size in frames:
        begin, position = max(position, read_until), position + size
        if target in targets and position > read_until:
            reads += begin > end + NEIGHBOUR_BYTES
            end = position
    return reads


def sent_between(edges: tuple[Edge, ...], payloads: Floats, frame_bytes: int, workers: int) -> Floats:
    """Return the frames and bytes of one exchange over all micro-batches: 2 x sources x targets."""
    found = np.zeros((2, workers, workers))
    exchange = EdgeArrays.of(edges)
    for sizes in payloads.T:
        frames = _frames(exchange, sizes, frame_bytes)
        pairs = exchange.sources[frames.edge[frames.pair_frame]], frames.pair_target
        np.add.at(found[0], pairs, 1)
        np.add.at(found[1], pairs, frames.size[frames.pair_frame])
    return found


def gather_step(source: int, target: int, payload: int, limits: ChannelLimits, *, queue: bool) -> Outgoing:
    """Return a rank's gather message: it tells the parent that the subtree is done, with `payload` bytes of summary."""
    pieces = [min(CONTROL_BYTES, payload - start) for start in range(0, payload, CONTROL_BYTES)] or [0]
    # The numbers of the edge and of targets are 0 and 1, a byte each.
    sizes = np.array(pieces, np.float64) + FRAME_HEADER_BYTES + 2 + _varint_bytes(np.array([source, target])).sum()
    count, wire = sizes.size, float(sizes.sum())
    sources, targets, edges = np.full(count, source), np.full(count, target), np.zeros(count, np.int64)
    if not queue:
        written = Sent(count, wire, wire, (), 0, count)
        return Outgoing({source: written}, [(source, 0)], sources, targets, edges, sizes, {})
    texts = np.ceil(sizes * 4 / 3)
    whole = texts + len("toString.Array") + len(str(target)) + len('"", ')
    topic = target // limits.ranks_a_topic
    batches = tuple(
        Batch(topic, size, 1, units, units, number, number + 1)
        for number, (size, units) in enumerate(zip(whole.tolist(), _units(whole).tolist(), strict=True))
    )
    published = Sent(count, wire, float(texts.sum()), batches, 0, count)
    return Outgoing({source: published}, [(source, 0)], sources, targets, edges, texts, {})


def _frames(exchange: EdgeArrays, payloads: Floats, frame_bytes: int) -> _Frames:
    """Split each edge's payload into frames of at most `frame_bytes` bytes."""
    header = exchange.header
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
    """Return the batch number of each message, by first-fit decreasing per source and topic; ascending by source."""
    order = np.lexsort((-sizes, topic, source))
    begins = _changes(source[order], topic[order])
    group = np.cumsum(begins) - 1
    place = np.arange(order.size) - np.flatnonzero(begins)[group]
    starts = begins | (place % BATCH_ENTRIES == 0)
    tens = np.cumsum(starts) - 1
    if (np.bincount(tens, weights=sizes[order]) > batch_bytes).any():
        tens = _first_fit(group, sizes[order], batch_bytes)
    found = np.empty_like(tens)
    found[order] = tens
    return found


def _first_fit(group: Ints, sizes: Floats, batch_bytes: int) -> Ints:
    found, base = np.zeros(group.size, np.int64), 0
    for _, start, end in _groups(group):
        found[start:end] = first_fit(sizes[start:end].tolist(), BATCH_ENTRIES, batch_bytes)
        found[start:end] += base
        base = int(found[start:end].max()) + 1
    return found


def units(size: float) -> int:
    """Return the number of 64 KiB units that a request of `size` bytes is billed as, at least 1."""
    return int(-(-size // UNIT_BYTES)) or 1


def _units(sizes: Floats) -> Ints:
    return np.maximum(1, np.ceil(sizes / UNIT_BYTES)).astype(np.int64)


def _digits(numbers: Ints) -> Ints:
    return np.searchsorted(10 ** np.arange(1, 10), numbers, side="right") + 1


def _varint_bytes(numbers: Ints) -> Ints:
    """Return the number of bytes that each number takes as a varint."""
    return np.searchsorted(1 << np.arange(7, 35, 7), numbers, side="right") + 1


def _changes(*keys: Ints) -> NDArray[np.bool_]:
    """Return a mask of the positions where a run of equal keys begins."""
    found = np.zeros(keys[0].size, np.bool_)
    found[:1] = True
    for key in keys:
        found[1:] |= key[1:] != key[:-1]
    return found


def _starts(keys: Ints) -> Ints:
    """Return for each entry the index at which its run of equal keys begins."""
    begins = _changes(keys)
    return np.flatnonzero(begins)[np.cumsum(begins) - 1] if keys.size else keys


def _groups(keys: Ints) -> Iterable[tuple[int, int, int]]:
    """Return the runs of equal keys as (key, start, end), the end excluded."""
    starts = np.flatnonzero(_changes(keys))
    ends = [*starts[1:].tolist(), keys.size]
    return list(zip(keys[starts].tolist(), starts.tolist(), ends, strict=True))
