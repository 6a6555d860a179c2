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

from fsd_inference.cost.frames import ChannelLimits, FrameSize, Payloads, extra_reads
from fsd_inference.engine.messages import Step
from fsd_inference.limits import BATCH_ENTRIES, UNIT_BYTES
from fsd_inference.packing import first_fit
from fsd_inference.partitioning.plan import Edge, ExchangePlan

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

HEADER_BYTES, TARGET_BYTES = 73, 2  # of a frame, and of each target in it (rust_kernels/core/src/frame.rs)
_INDEX_BYTES, _ENTRY_BYTES, _ENTRY_TARGET_BYTES = 16, 12, 4  # of an object of frames (channels/parts.py)


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
    """What one rank sends after one layer of one micro-batch: in batches, or as an object; deliveries from and to."""

    frames: int
    wire_bytes: float
    body_bytes: float
    batches: tuple[Batch, ...]
    first: int
    last: int


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
        sources = np.array([edge.source for edge in edges], np.int64)
        fan = np.array([len(edge.targets) for edge in edges], np.int64)
        targets = np.array(list(chain.from_iterable([edge.targets for edge in edges])), np.int64)
        numbers = np.arange(len(edges)) - _starts(sources)
        return cls(sources, numbers, list(zip(sources.tolist(), numbers.tolist(), strict=True)), fan, targets)

    def received(self, payloads: Floats, workers: int) -> Floats:
        """Return the payload bytes that each rank gets, workers x micro-batches."""
        found = np.zeros((workers, payloads.shape[1]))
        np.add.at(found, self.targets, np.repeat(payloads, self.fan, axis=0))
        return found


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
    beyond : dict of (source, target) to int
        Over objects, the reads that a target needs beyond its first; mostly none.
    """

    sent: dict[int, Sent]
    places: list[tuple[int, int]]
    sources: Ints
    targets: Ints
    edges: Ints
    sizes: Floats
    beyond: dict[tuple[int, int], int]

    def deliveries(self, batch: Batch) -> list[Delivery]:
        """Return what a batch brings to whom."""
        part = slice(batch.first, batch.last)
        places = (self.places[edge] for edge in self.edges[part].tolist())
        return [*map(Delivery, self.targets[part].tolist(), places, self.sizes[part].tolist())]

    def readers(self, source: int) -> list[Reader]:
        """Return who reads what of the object of a source."""
        sent = self.sent[source]
        part = slice(sent.first, sent.last)
        edges = [self.places[edge] for edge in self.edges[part].tolist()]
        sizes = self.sizes[part]
        return [
            Reader(
                target,
                tuple(dict.fromkeys(edges[start:end])),
                float(sizes[start:end].sum()),
                1 + self.beyond.get((source, target), 0),
            )
            for target, start, end in _groups(self.targets[part])
        ]


NOTHING = Outgoing({}, [], np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), {})


class Traffic:
    """What ranks send and get of each step; what they send is kept until all have sent it.

    Parameters
    ----------
    plan : ExchangePlan
    payloads : Payloads
    limits : ChannelLimits
    queue : bool
        Whether in batches of messages, otherwise as objects.
    """

    def __init__(self, plan: ExchangePlan, payloads: Payloads, limits: ChannelLimits, *, queue: bool) -> None:
        self._build = queue_step if queue else object_step
        self._payloads, self._limits = payloads.exchanges, limits
        self._exchanges = [Exchange.of(exchange) for exchange in plan.exchanges]
        self._received = [
            exchange.received(sizes, plan.workers).tolist()
            for exchange, sizes in zip(self._exchanges, payloads.exchanges, strict=True)
        ]
        self._steps: dict[Step, Outgoing] = {}
        self._unsent: dict[Step, int] = {}  # ranks that are still to send of a step

    def of(self, step: Step) -> Outgoing:
        """Return what ranks send of a step: nothing of the last layer."""
        layer, micro_batch = step
        if layer >= len(self._exchanges):
            return NOTHING
        if step not in self._steps:
            self._steps[step] = self._build(self._exchanges[layer], self._payloads[layer][:, micro_batch], self._limits)
            self._unsent[step] = len(self._steps[step].sent)
        return self._steps[step]

    def one_has_sent(self, step: Step) -> None:
        """Note that one of the ranks that send of a step has done so."""
        self._unsent[step] -= 1
        if not self._unsent[step]:
            del self._steps[step], self._unsent[step]

    def received_bytes(self, step: Step, rank: int) -> float:
        """Return the payload bytes that a rank gets before a step."""
        received: float = self._received[step.layer - 1][rank][step.micro_batch] if step.layer else 0.0
        return received


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
        sent[rank] = Sent(end - start, *sizes_of, tuple(batches[begin:stop]), first[begin], first[stop])
    frame = frames.pair_frame[order]
    edge = frames.edge[frame]
    return Outgoing(sent, exchange.places, exchange.sources[edge], frames.pair_target[order], edge, texts[frame], {})


def object_step(exchange: Exchange, payloads: Floats, limits: ChannelLimits) -> Outgoing:
    """Return the object that each rank writes of one step, and who reads what of it."""
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
    """Return the reads beyond the first of the object of frames start..end: rare, so frame by frame."""
    targets: dict[int, list[int]] = {}
    for frame, target in zip(frames.pair_frame.tolist(), frames.pair_target.tolist(), strict=True):
        if start <= frame < end:
            targets.setdefault(frame, []).append(target)
    cut = [FrameSize(tuple(targets[frame]), float(frames.size[frame])) for frame in range(start, end)]
    readers = {target for frame in cut for target in frame.targets}
    found = {(rank, target): extra_reads(cut, target, first_bytes) for target in readers}
    return {pair: reads for pair, reads in found.items() if reads}


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
        written = Sent(1, wire, wire, (), 0, 1)
        return Outgoing({source: written}, [place], here, there, edge, np.array([wire]), {})
    text = float(np.ceil(wire * 4 / 3))
    whole = text + len("toString.Array") + len(str(target)) + len('"", ')
    units = int(_units(np.array([whole]))[0])
    batch = Batch(target // limits.ranks_a_topic, whole, 1, units, units, 0, 1)
    published = Sent(1, wire, text, (batch,), 0, 1)
    return Outgoing({source: published}, [place], here, there, edge, np.array([text]), {})


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
