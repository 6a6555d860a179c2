"""Frames and requests computed one by one: the test oracle of `fsd_inference.forecast.frames`."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fsd_inference.forecast.frames import ChannelLimits
from fsd_inference.forecast.payloads import Payloads
from fsd_inference.limits import BATCH_ENTRIES, FRAME_HEADER_BYTES, NEIGHBOUR_BYTES
from fsd_inference.packing import first_fit
from fsd_inference.partitioning.plan import ExchangePlan

_INDEX_BYTES, _ENTRY_BYTES, _TARGET_BYTES = 16, 12, 4  # sizes in the index of an object of frames (channels/parts.py)


class FrameSize(NamedTuple):
    """The target ranks of a frame, and its size in bytes including the header."""

    targets: tuple[int, ...]
    size: float

    @property
    def text_size(self) -> float:
        """Size in bytes after base64 encoding, as sent over SNS and SQS."""
        return math.ceil(self.size * 4 / 3)


@dataclass(frozen=True, slots=True)
class StepFrames:
    """The frames that one rank sends after one layer of one micro-batch."""

    layer: int
    micro_batch: int
    source: int
    frames: tuple[FrameSize, ...]


def header_bytes(source: int, edge: int, targets: tuple[int, ...]) -> int:
    """Return the bytes of a frame without its payload: 28, and a varint for each of these numbers."""
    return FRAME_HEADER_BYTES + sum(
        max(1, -(-number.bit_length() // 7)) for number in (source, edge, len(targets), *targets)
    )


def cut_frames(source: int, edge: int, targets: tuple[int, ...], payload: float, frame_bytes: int) -> list[FrameSize]:
    """Split `payload` bytes into frames of at most `frame_bytes` bytes, including headers."""
    header = header_bytes(source, edge, targets)
    room = frame_bytes - header
    whole, rest = divmod(payload, room)
    last = [FrameSize(targets, header + rest)] if rest or not whole else []
    return [FrameSize(targets, float(frame_bytes))] * int(whole) + last


def step_frames(plan: ExchangePlan, payloads: Payloads, frame_bytes: int) -> Iterator[StepFrames]:
    """Yield the frames that each rank sends in each step."""
    for layer, sizes in enumerate(payloads.exchanges):
        for micro_batch, of_edges in enumerate(sizes.T.tolist()):
            of_source: defaultdict[int, list[FrameSize]] = defaultdict(list)
            numbers: defaultdict[int, int] = defaultdict(int)
            for edge, payload in zip(plan.exchanges[layer], of_edges, strict=True):
                number = numbers[edge.source]
                of_source[edge.source] += cut_frames(edge.source, number, edge.targets, payload, frame_bytes)
                numbers[edge.source] += 1
            for source, frames in of_source.items():
                yield StepFrames(layer, micro_batch, source, tuple(frames))


def publish_batches(frames: Iterable[FrameSize], limits: ChannelLimits) -> list[list[float]]:
    """Return the message sizes of each PublishBatch of a send, packed by topic as the channel does."""
    topics: defaultdict[int, list[float]] = defaultdict(list)
    for frame in frames:
        text = frame.text_size
        for topic, attribute in _topics(frame.targets, limits.ranks_a_topic):
            topics[topic].append(text + attribute)
    return [batch for messages in topics.values() for batch in _batches(messages, limits.message_bytes)]


def _topics(targets: tuple[int, ...], ranks_a_topic: int) -> tuple[tuple[int, int], ...]:
    """Return the topics of a frame, each with the size in bytes of the attribute that names its targets."""
    by_topic: defaultdict[int, list[int]] = defaultdict(list)
    for target in targets:
        by_topic[target // ranks_a_topic].append(target)
    return tuple((topic, _attribute_bytes(of_topic)) for topic, of_topic in by_topic.items())


def _attribute_bytes(targets: Sequence[int]) -> int:
    """Return the size in bytes of the attribute `to`: its name, its type, and its value, a JSON list of strings."""
    return len("to") + len("String.Array") + sum(len(str(target)) + len('"", ') for target in targets)


def _batches(messages: Iterable[float], batch_bytes: int) -> list[list[float]]:
    ordered = sorted(messages, reverse=True)
    batches: defaultdict[int, list[float]] = defaultdict(list)
    for size, number in zip(ordered, first_fit(ordered, BATCH_ENTRIES, batch_bytes), strict=True):
        batches[number].append(size)
    return list(batches.values())


def extra_reads(frames: Sequence[FrameSize], target: int, first_bytes: int) -> int:
    """Return the number of reads after the first one with which `target` gets its part of an object of `frames`."""
    start = _INDEX_BYTES + sum(_ENTRY_BYTES + _TARGET_BYTES * len(frame.targets) for frame in frames)
    reads = int(start > first_bytes)
    read_until = max(float(first_bytes), start)
    end = -math.inf  # end of the current byte range
    position = float(start)
    for frame in frames:
        begin, position = max(position, read_until), position + frame.size
        if target in frame.targets and position > read_until:
            reads += begin > end + NEIGHBOUR_BYTES
            end = position
    return reads
