"""Counts before the run: the requests and bytes of a run, from its exchange plan and the predicted sizes of its frames.

What is sent follows from the plan alone: which rank sends after which layer, in how many frames, packed into how many
requests. What is received also depends on timing: how many messages a poll finds, how often an object is looked for
before it is there. `Habits` says that, fitted on runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain

from fsd_inference.config import RunSettings
from fsd_inference.cost.frames import (
    ChannelLimits,
    FrameSize,
    Payloads,
    cut_frames,
    object_reads,
    publish_batches,
    step_frames,
    units,
)
from fsd_inference.cost.habits import Habits
from fsd_inference.engine.tree import Tree
from fsd_inference.errors import SettingError
from fsd_inference.limits import CONTROL_BYTES, HASH_FOLDERS, KEYS_A_REQUEST, SUMMARY_BYTES
from fsd_inference.partition.plan import ExchangePlan
from fsd_inference.usage import EACH_MESSAGE, Usage


def predict_serial(payloads: Payloads, settings: RunSettings, limits: ChannelLimits | None = None) -> Usage:
    """Return what a run in a single function will count: the input, a claim, the result, a report."""
    usage = Usage()
    count_run(usage, 1, payloads, settings, limits or ChannelLimits())
    return usage


def predict_queue(
    plan: ExchangePlan,
    payloads: Payloads,
    settings: RunSettings,
    *,
    lane_ranks: int | None = None,
    habits: Habits | None = None,
    limits: ChannelLimits | None = None,
) -> Usage:
    """Return what a run over `queue` will count.

    Parameters
    ----------
    plan, payloads
        The exchange plan and the sizes of what its edges carry.
    settings : RunSettings
        Branching and output of the run.
    lane_ranks : int, optional
        Queues of a lane, which are all purged after the run; as many as workers if not given.
    habits, limits : optional
    """
    habits, limits = habits or Habits(), limits or ChannelLimits()
    usage, traffic = Usage(), _Traffic(plan.workers)
    for step in step_frames(plan, payloads, limits.queue_frame_bytes):
        traffic.publish(usage, step.frames, limits, step.times)
        traffic.to(step.layer, step.source, step.frames, step.times)
    for source, parent in _gathers(plan.workers, settings):
        frames = _gather_frames(parent, payloads, settings)
        for frame in frames:
            traffic.publish(usage, [frame], limits)
        traffic.to(len(plan.exchanges), source, frames)
    polls = billed = 0.0
    for layer in traffic.layers.values():
        layer_mb = sum(got.text_bytes for got in layer) / 1e6
        for got in layer:
            if got.messages:
                of_layer = habits.polls_before(len(got.sources), got.messages, layer_mb)
                polls += of_layer
                billed += of_layer * units(got.text_bytes / of_layer)
    empty = habits.waiting_s(plan.workers) / limits.poll_s
    usage.empty_polls = round(empty)
    _count(usage, "sqs.receive", round(polls + empty), round(billed + empty))
    usage.frames, usage.wire_bytes = traffic.frames, round(traffic.wire_bytes)
    usage.body_bytes, usage.received_bytes = (
        round(traffic.text_bytes),
        round(sum(got.text_bytes for got in traffic.received())),
    )
    count_lane(usage, lane_ranks or plan.workers)
    count_run(usage, plan.workers, payloads, settings, limits)
    return usage


def predict_object(
    plan: ExchangePlan,
    payloads: Payloads,
    settings: RunSettings,
    *,
    buckets: int = 1,
    habits: Habits | None = None,
    limits: ChannelLimits | None = None,
) -> Usage:
    """Return what a run over `object` will count.

    Parameters
    ----------
    plan, payloads
        The exchange plan and the sizes of what its edges carry.
    settings : RunSettings
        Branching and output of the run.
    buckets : int
        Buckets that the objects are spread over; all are swept after the run. On functions none is: 0.
    habits, limits : optional
    """
    habits, limits = habits or Habits(), limits or ChannelLimits()
    usage, traffic = Usage(), _Traffic(plan.workers)
    writes = reads = 0
    for step in step_frames(plan, payloads, limits.object_frame_bytes):
        writes += step.times
        traffic.to(step.layer, step.source, step.frames, step.times)
        reads += step.times * object_reads(step.frames, limits.first_bytes)
    misses = sum(habits.misses_before(len(got.sources)) for got in traffic.received() if got.sources)
    for source, parent in _gathers(plan.workers, settings):
        frames = _gather_frames(parent, payloads, settings)
        traffic.to(len(plan.exchanges), source, frames)
        writes += 1
        reads += object_reads(frames, limits.first_bytes)
    usage.misses = round(misses + habits.waiting_s(plan.workers) * habits.looks_a_second)
    usage.frames, usage.wire_bytes = traffic.frames, round(traffic.wire_bytes)
    usage.body_bytes, usage.received_bytes = usage.wire_bytes, round(sum(got.bytes for got in traffic.received()))
    _count(usage, "s3.put", writes)
    _count(usage, "s3.get", reads + usage.misses)
    count_sweep(usage, buckets, writes)
    count_run(usage, plan.workers, payloads, settings, limits)
    return usage


class _Received:
    """What one rank receives before one layer."""

    __slots__ = ("bytes", "messages", "sources", "text_bytes")

    def __init__(self) -> None:
        self.sources: set[int] = set()
        self.messages = 0
        self.bytes = self.text_bytes = 0.0


class _Traffic:
    """Sums over what is sent: in all, and by the layer before which and the rank by which it is received."""

    def __init__(self, workers: int) -> None:
        self.frames = 0
        self.wire_bytes = self.text_bytes = 0.0
        self.layers: dict[int, list[_Received]] = {}
        self._workers = workers

    def to(self, layer: int, source: int, frames: Sequence[FrameSize], times: int = 1) -> None:
        """Note what `source` sends after `layer`, so many times."""
        if layer not in self.layers:
            self.layers[layer] = [_Received() for _ in range(self._workers)]
        ranks = self.layers[layer]
        self.frames += times * len(frames)
        for frame in frames:
            size, text_size = times * frame.size, times * frame.text_size
            self.wire_bytes += size
            self.text_bytes += text_size
            for target in frame.targets:
                got = ranks[target]
                got.sources.add(source)
                got.messages += times
                got.bytes += size
                got.text_bytes += text_size

    def received(self) -> Iterator[_Received]:
        """Yield what each rank receives before each layer; of some ranks, nothing."""
        return chain.from_iterable(self.layers.values())

    @staticmethod
    def publish(usage: Usage, frames: Sequence[FrameSize], limits: ChannelLimits, times: int = 1) -> None:
        """Count the requests that publish the frames of one send, so many times."""
        batches = publish_batches(frames, limits)
        _count(usage, "sns.publish", times * len(batches), times * sum(units(sum(batch)) for batch in batches))
        apart = sum(units(size) for batch in batches for size in batch)
        usage.billed_units[f"sns.publish{EACH_MESSAGE}"] += times * apart


def _count(usage: Usage, kind: str, requests: int, billed: int | None = None) -> None:
    usage.requests[kind] += requests
    usage.billed_units[kind] += max(requests, requests if billed is None else billed)


def count_lane(usage: Usage, ranks: int) -> None:
    """Count what it takes to have a lane of so many queues, and to give it back."""
    _count(usage, "sqs.purge", ranks)
    # The lease: looked up among the others and read; then held, held on to while the queues are purged, given back.
    for kind, count in (("s3.list", 1), ("s3.get", 1), ("s3.put", 3)):
        _count(usage, kind, count)


def count_sweep(usage: Usage, buckets: int, objects: int) -> None:
    """Count the removal of the channel's objects: each folder is listed, and what lies there is deleted."""
    if not buckets:
        return
    folders = len(HASH_FOLDERS) * buckets
    _count(usage, "s3.list", folders)
    _count(usage, "s3.delete", round(folders * (1 - (1 - 1 / folders) ** objects)))


def count_run(usage: Usage, workers: int, payloads: Payloads, settings: RunSettings, limits: ChannelLimits) -> None:
    """Count what every run needs, whatever its channel: the input, claims, shards, results, reports, tidying up."""
    results = workers if settings.output == "rows" else 1
    _count(usage, "s3.put", 1 + 2 * workers + results)
    # A rank reads the manifest, its shard and the input, which takes another read where it is longer than the first.
    of_rank = 3 + (payloads.input_bytes > limits.first_bytes)
    _count(usage, "s3.get", workers * of_rank + workers + results)
    objects = 1 + 2 * workers + results
    _count(usage, "s3.list", math.ceil(objects / KEYS_A_REQUEST))
    _count(usage, "s3.delete", math.ceil(objects / KEYS_A_REQUEST))


def _gathers(workers: int, settings: RunSettings) -> list[tuple[int, int]]:
    """Return each rank but 0 with its parent, to whom it says that its subtree is done."""
    if settings.workers != workers:
        raise SettingError(f"the settings are for {settings.workers} workers, but the plan has {workers}")
    tree = Tree(workers, settings.branching)
    return [(rank, tree.parent(rank) or 0) for rank in range(1, workers)]


def _gather_frames(parent: int, payloads: Payloads, settings: RunSettings) -> list[FrameSize]:
    size = 0 if settings.output == "rows" else SUMMARY_BYTES * sum(payloads.samples)
    pieces = [min(CONTROL_BYTES, size - start) for start in range(0, size, CONTROL_BYTES)] or [0]
    return [frame for piece in pieces for frame in cut_frames((parent,), piece, 1 << 30)]
