"""What a plan's edges send: predicted sizes of their packed rows, and the frames and requests that follow."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fsd_inference.errors import SettingError
from fsd_inference.limits import (
    BATCH_ENTRIES,
    FIRST_READ_BYTES,
    FRAME_HEADER_BYTES,
    MESSAGE_BYTES,
    NEIGHBOUR_BYTES,
    UNIT_BYTES,
)
from fsd_inference.packing import first_fit
from fsd_inference.partitioning.plan import ExchangePlan

_INDEX_BYTES, _ENTRY_BYTES, _TARGET_BYTES = 16, 12, 4  # of an object of frames (channels/parts.py)


@dataclass(frozen=True, slots=True)
class Payloads:
    """Predicted sizes of what a plan's edges carry.

    Attributes
    ----------
    samples : tuple of int
        Samples of each micro-batch.
    exchanges : tuple of ndarray of float64, edges x micro-batches
        Bytes of the packed rows of each edge, in the order of the plan's exchanges.
    input_bytes : float
        Of the input object.
    live : tuple of float
        After each layer but the last, the share of samples with any activation that is not zero.
    density : tuple of float
        After each layer but the last, the share of activations that are not zero.
    """

    samples: tuple[int, ...]
    exchanges: tuple[NDArray[np.float64], ...]
    input_bytes: float
    live: tuple[float, ...]
    density: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ChannelLimits:
    """What the channels take, and how they ask; the defaults are theirs (channels/queue.py, channels/object.py).

    Attributes
    ----------
    message_bytes : int
        Most bytes of an SNS message, and of a batch, attributes included.
    attribute_bytes : int
        Of them, kept free for the attribute that names the targets.
    object_frame_bytes : int
        Most bytes of a frame over `object`.
    first_bytes : int
        What the first read of an object asks for.
    poll_s : float
        Longest single receive: a wait of so long is an empty poll.
    ranks_a_topic : int
        Ranks that one topic serves.
    """

    message_bytes: int = MESSAGE_BYTES
    attribute_bytes: int = 1024
    object_frame_bytes: int = 16 << 20
    first_bytes: int = FIRST_READ_BYTES
    poll_s: float = 2.0
    ranks_a_topic: int = 100

    @property
    def queue_frame_bytes(self) -> int:
        """Most bytes of a frame over `queue`, before base64."""
        return (self.message_bytes - self.attribute_bytes) * 3 // 4


class FrameSize(NamedTuple):
    """A frame: its target ranks, and its bytes with the header; a plan has many."""

    targets: tuple[int, ...]
    size: float

    @property
    def text_size(self) -> float:
        """Bytes in base64, as SNS and SQS carry it."""
        return math.ceil(self.size * 4 / 3)


@dataclass(frozen=True, slots=True)
class StepFrames:
    """What one rank sends after one layer of one micro-batch, and of how many that are alike."""

    layer: int
    source: int
    frames: tuple[FrameSize, ...]
    times: int


def cut_frames(targets: tuple[int, ...], payload: float, frame_bytes: int) -> list[FrameSize]:
    """Return the frames that carry `payload` bytes, none longer than `frame_bytes`, its header included."""
    header = FRAME_HEADER_BYTES + 2 * len(targets)
    room = frame_bytes - header
    whole, rest = divmod(payload, room)
    last = [FrameSize(targets, header + rest)] if rest or not whole else []
    return [FrameSize(targets, float(frame_bytes))] * int(whole) + last


def step_frames(plan: ExchangePlan, payloads: Payloads, frame_bytes: int) -> Iterator[StepFrames]:
    """Yield what each rank sends, step by step; micro-batches that are alike, as most are, at once.

    Parameters
    ----------
    plan : ExchangePlan
    payloads : Payloads
        Of this plan.
    frame_bytes : int
        Most bytes of a frame.

    Raises
    ------
    SettingError
        The sizes are those of another plan.
    """
    edges = [len(exchange) for exchange in plan.exchanges]
    if edges != [len(sizes) for sizes in payloads.exchanges]:
        raise SettingError("the sizes of frames were predicted for another plan: predict them for this one")
    for layer, sizes in enumerate(payloads.exchanges):
        for of_edges, alike in groupby(sizes.T.tolist()):
            times = sum(1 for _ in alike)
            of_source: defaultdict[int, list[FrameSize]] = defaultdict(list)
            for edge, payload in zip(plan.exchanges[layer], of_edges, strict=True):
                of_source[edge.source] += cut_frames(edge.targets, payload, frame_bytes)
            for source, frames in of_source.items():
                yield StepFrames(layer, source, tuple(frames), times)


def publish_batches(frames: Iterable[FrameSize], limits: ChannelLimits) -> list[list[float]]:
    """Return the message sizes of each PublishBatch that a send makes: a topic's apart, packed as the channel packs."""
    topics: defaultdict[int, list[float]] = defaultdict(list)
    for frame in frames:
        text = frame.text_size
        for topic, attribute in _topics(frame.targets, limits.ranks_a_topic):
            topics[topic].append(text + attribute)
    return [batch for messages in topics.values() for batch in _batches(messages, limits.message_bytes)]


@lru_cache(1 << 16)  # the same few edges, layer after layer
def _topics(targets: tuple[int, ...], ranks_a_topic: int) -> tuple[tuple[int, int], ...]:
    """Return the topics by which a frame goes, each with the bytes of the attribute that names its targets there."""
    by_topic: defaultdict[int, list[int]] = defaultdict(list)
    for target in targets:
        by_topic[target // ranks_a_topic].append(target)
    return tuple((topic, _attribute_bytes(of_topic)) for topic, of_topic in by_topic.items())


def _attribute_bytes(targets: Sequence[int]) -> int:
    """Bytes of the attribute `to`: its name, its type, and its value, a JSON list of strings."""
    return len("to") + len("String.Array") + sum(len(str(target)) + len('"", ') for target in targets)


def _batches(messages: Iterable[float], batch_bytes: int) -> list[list[float]]:
    ordered = sorted(messages, reverse=True)
    batches: defaultdict[int, list[float]] = defaultdict(list)
    for size, number in zip(ordered, first_fit(ordered, BATCH_ENTRIES, batch_bytes), strict=True):
        batches[number].append(size)
    return list(batches.values())


def units(size: float) -> int:
    """Return the 64 KiB units that a request of `size` bytes is billed as."""
    return int(-(-size // UNIT_BYTES)) or 1


def object_reads(frames: Sequence[FrameSize], first_bytes: int) -> int:
    """Return the reads by which all readers of an object of `frames` get what is theirs: one each and `extra_reads`."""
    start = _INDEX_BYTES + sum(_ENTRY_BYTES + _TARGET_BYTES * len(frame.targets) for frame in frames)
    position, read_until = float(start), max(float(first_bytes), start)
    ends: dict[int, float] = {}  # of the range that each reader joins
    more = 0
    for frame in frames:
        begin, position = max(position, read_until), position + frame.size
        for target in frame.targets:
            end = ends.setdefault(target, -math.inf)
            if position > read_until:
                more += begin > end + NEIGHBOUR_BYTES
                ends[target] = position
    return len(ends) * (1 + (start > first_bytes)) + more


def extra_reads(frames: Sequence[FrameSize], target: int, first_bytes: int) -> int:
    """Return the reads of an object of `frames` that `target` needs beyond the first one."""
    start = _INDEX_BYTES + sum(_ENTRY_BYTES + _TARGET_BYTES * len(frame.targets) for frame in frames)
    reads = int(start > first_bytes)
    read_until = max(float(first_bytes), start)
    end = -math.inf  # of the range that is being joined
    position = float(start)
    for frame in frames:
        begin, position = max(position, read_until), position + frame.size
        if target in frame.targets and position > read_until:
            reads += begin > end + NEIGHBOUR_BYTES
            end = position
    return reads
