"""Frames and requests told slowly, frame by frame: the oracle of `fsd_inference.forecast.frames`."""

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

_INDEX_BYTES, _ENTRY_BYTES, _TARGET_BYTES = 16, 12, 4  # of an object of frames (channels/parts.py)


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
    """What one rank sends after one layer of one micro-batch."""

    layer: int
    micro_batch: int
    source: int
    frames: tuple[FrameSize, ...]


def cut_frames(targets: tuple[int, ...], payload: float, frame_bytes: int) -> list[FrameSize]:
    """Return the frames that carry `payload` bytes, none longer than `frame_bytes`, its header included."""
    header = FRAME_HEADER_BYTES + 2 * len(targets)
    room = frame_bytes - header
    whole, rest = divmod(payload, room)
    last = [FrameSize(targets, header + rest)] if rest or not whole else []
    return [FrameSize(targets, float(frame_bytes))] * int(whole) + last


def step_frames(plan: ExchangePlan, payloads: Payloads, frame_bytes: int) -> Iterator[StepFrames]:
    """Yield what each rank sends, step by step."""
    for layer, sizes in enumerate(payloads.exchanges):
        for micro_batch, of_edges in enumerate(sizes.T.tolist()):
            of_source: defaultdict[int, list[FrameSize]] = defaultdict(list)
            for edge, payload in zip(plan.exchanges[layer], of_edges, strict=True):
                of_source[edge.source] += cut_frames(edge.targets, payload, frame_bytes)
            for source, frames in of_source.items():
                yield StepFrames(layer, micro_batch, source, tuple(frames))


def publish_batches(frames: Iterable[FrameSize], limits: ChannelLimits) -> list[list[float]]:
    """Return the message sizes of each PublishBatch that a send makes: a topic's apart, packed as the channel packs."""
    topics: defaultdict[int, list[float]] = defaultdict(list)
    for frame in frames:
        text = frame.text_size
        for topic, attribute in _topics(frame.targets, limits.ranks_a_topic):
            topics[topic].append(text + attribute)
    return [batch for messages in topics.values() for batch in _batches(messages, limits.message_bytes)]


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
