"""Predicted requests and bytes of a run, counted from its exchange plan.

Sends follow from the plan alone: which rank sends after which layer, in how many frames, packed into how many requests.
Receives also depend on timing: how many messages a poll returns, how often an object is polled before it exists.
`ReceiveModel` estimates those.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby, repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fsd_inference.config import RunSettings
from fsd_inference.engine.pieces import requests
from fsd_inference.engine.tree import Tree
from fsd_inference.errors import SettingError
from fsd_inference.forecast.course import Course
from fsd_inference.forecast.frames import (
    ChannelLimits,
    EdgeArrays,
    Floats,
    Outgoing,
    gather_step,
    step_frames,
    units,
)
from fsd_inference.forecast.payloads import Payloads
from fsd_inference.forecast.receive_model import ReceiveModel
from fsd_inference.limits import HASH_FOLDERS, KEYS_A_REQUEST, RENEW_S, SUMMARY_BYTES
from fsd_inference.partitioning.plan import ExchangePlan
from fsd_inference.usage import EACH_MESSAGE, RECEIVED_MESSAGES, Usage

_EACH = f"sns.publish{EACH_MESSAGE}"


def count_usage(
    plan: ExchangePlan,
    payloads: Payloads,
    settings: RunSettings,
    channel: str,
    *,
    purged: int = 0,
    buckets: int = 1,
    receiving: ReceiveModel | None = None,
    limits: ChannelLimits | None = None,
    shard_bytes: Sequence[int] | None = None,
    course: Course | None = None,
) -> Usage:
    """Return the predicted requests and bytes of a whole run of local processes, the exchange included.

    Parameters
    ----------
    plan : ExchangePlan
    payloads : Payloads
        Sizes of what the plan's edges carry.
    settings : RunSettings
        Workers, branching and output of the run.
    channel : {"serial", "queue", "object"}
    purged : int
        Over `queue`, see `count_lane`.
    buckets : int
        Over `object`, the number of buckets over which objects are spread; all are swept after the run. 0 for
        functions, whose objects expire instead.
    receiving : ReceiveModel, optional
    limits : ChannelLimits, optional
    shard_bytes : sequence of int, optional
        Size of each rank's shard; default: small shards, each of which is read by one request.
    course : Course, optional
        The attempts of the run; default: one.

    Raises
    ------
    SettingError
        The payloads are those of another plan, or the settings are for another number of workers.
    """
    limits = limits or ChannelLimits()
    course = course or Course.whole(len(plan.exchanges) + 1, settings.checkpoint_every)
    shards = [0] * plan.workers if shard_bytes is None else shard_bytes
    own = count_own(payloads, settings, limits, shards, course=course)
    attempts, weights = len(course.attempts), course.sends().tolist()
    exchange = count_exchange(plan, payloads, settings, channel, weights=weights, receiving=receiving, limits=limits)
    if channel == "queue":
        own += sum([count_lane(purged)] * attempts, Usage())
    if channel == "object":
        own += count_sweeps(buckets, exchange.requests["s3.put"], attempts)
    return exchange + own


def count_exchange(
    plan: ExchangePlan,
    payloads: Payloads,
    settings: RunSettings,
    channel: str,
    *,
    weights: Sequence[float] | None = None,
    receiving: ReceiveModel | None = None,
    limits: ChannelLimits | None = None,
) -> Usage:
    """Return the predicted requests and bytes by which ranks exchange rows and send their parents gather messages.

    Parameters
    ----------
    plan, payloads, settings, channel, receiving, limits
        As for `count_usage`.
    weights : sequence of float, optional
        Number of exchanges that each exchange of the plan represents; default: 1 each.

    Raises
    ------
    SettingError
        The payloads are those of another plan, or the settings are for another number of workers.
    """
    payloads.check(plan)
    if settings.workers != plan.workers:
        raise SettingError(f"the settings are for {settings.workers} workers, but the plan has {plan.workers}")
    if channel == "serial":
        return Usage()
    receiving, limits, is_queue = receiving or ReceiveModel(), limits or ChannelLimits(), channel == "queue"
    layers = [
        _Layer(_micro_batches(EdgeArrays.of(edges), sizes, limits, queue=is_queue), weight)
        for edges, sizes, weight in zip(plan.exchanges, payloads.exchanges, weights or repeat(1.0), strict=False)
        if edges
    ]
    gathers = _gathers(settings, sum(payloads.samples), limits, queue=is_queue)
    if is_queue:
        return _count_queue(layers, gathers, plan.workers, receiving, limits)
    if channel == "direct":
        return _count_direct(layers, gathers, plan.workers)
    return _count_objects(layers, gathers, plan.workers, receiving)


def count_microvms(workers: int) -> Usage:
    """Return the requests that launch a run's MicroVMs, pass on their endpoints and tokens, and end them.

    The coordinator, which checks that all ranks have started, writes one object with all endpoints and tokens, which
    each rank reads.
    """
    each = dict.fromkeys(("microvm.run", "microvm.token", "microvm.terminate", "s3.get"), workers)
    return _requests({**each, "s3.put": 1})


def count_lane(purged: int, kept_s: float = 0.0) -> Usage:
    """Return the requests that lease a lane, renew the lease and release it after a run that ends well.

    Parameters
    ----------
    purged : int
        Number of queues that are purged before the release: none on AWS, all of the lane on a stack where purges take
        no time (`StackSpec.purge_settle_s`).
    kept_s : float, optional
        Seconds for which a client with local ranks holds the lane and renews its lease; a coordinator's needs no
        renewal.
    """
    # The lease is listed and read, written when it is acquired and when it is released, and renewed before a purge.
    renewals = math.floor(kept_s / RENEW_S)
    lease = {"s3.list": 1, "s3.get": 1, "s3.put": 2 + renewals}
    return _requests({**lease, "s3.put": 3 + renewals, "sqs.purge": purged} if purged else lease)


def count_sweeps(buckets: int, objects: int, attempts: int = 1) -> Usage:
    """Return the requests that delete the channel's `objects`, after each attempt those that it has written.

    They are a LIST for each folder, and a DELETE for each nonempty one.
    """
    if not buckets:
        return Usage()
    folders = len(HASH_FOLDERS) * buckets
    filled = round(folders * (1 - (1 - 1 / folders) ** (objects / attempts)))
    return _requests({"s3.list": attempts * folders, "s3.delete": attempts * filled})


def count_own(
    payloads: Payloads,
    settings: RunSettings,
    limits: ChannelLimits,
    shard_bytes: Sequence[int] | NDArray[np.int64],
    *,
    is_warm: bool = False,
    stays_warm: bool = False,
    course: Course | None = None,
) -> Usage:
    """Return the requests of a run that do not depend on its channel, for the objects of run and plan, and for cleanup.

    Parameters
    ----------
    payloads : Payloads
    settings : RunSettings
    limits : ChannelLimits
    shard_bytes : sequence of int
        Size of each rank's shard.
    is_warm, stays_warm : bool
        Whether the ranks have manifest and shard cached on disk, and whether those of later attempts have.
    course : Course, optional
        The attempts of the run; default: one.
    """
    workers = len(shard_bytes)
    course = course or Course.whole(len(payloads.exchanges) + 1, settings.checkpoint_every)
    attempts = len(course.attempts)
    results = workers if settings.output == "rows" else 1
    # The input; a claim and a report for each rank and attempt.
    objects = 1 + 2 * workers * attempts + results + workers * course.checkpoints
    resumed = sum(attempt.first > 0 for attempt in course.attempts)
    # The input takes a second read if it is longer than the first one reads; a checkpoint takes one.
    of_rank = (attempts - resumed) * (1 + (payloads.input_bytes > limits.first_bytes)) + resumed
    of_plan = workers + sum(requests(int(size)) for size in shard_bytes)  # manifests and shards
    opened = (not is_warm) + (attempts - 1) * (not stays_warm)
    pages = math.ceil(objects / KEYS_A_REQUEST)
    # The caller reads reports and results, and lists the checkpoints before another attempt.
    reads = opened * of_plan + workers * of_rank + workers * attempts + results
    lists = pages + (attempts - 1) * max(1, math.ceil(workers * course.checkpoints / KEYS_A_REQUEST))
    return _requests({"s3.put": objects, "s3.get": reads, "s3.list": lists, "s3.delete": pages})


def _requests(counts: Mapping[str, int]) -> Usage:
    return Usage(Counter(counts), Counter(counts))


class _Layer(NamedTuple):
    """The frames of an exchange by micro-batch, with repetitions; it represents `weight` exchanges of the plan."""

    steps: Sequence[tuple[Outgoing, int]]
    weight: float


def _micro_batches(
    exchange: EdgeArrays, sizes: Floats, limits: ChannelLimits, *, queue: bool
) -> list[tuple[Outgoing, int]]:
    """Return the frames of each micro-batch with its number of repetitions: most micro-batches are equal."""
    return [
        (step_frames(exchange, np.array(column), limits, queue=queue), sum(1 for _ in alike))
        for column, alike in groupby(sizes.T.tolist())
    ]


def _gathers(settings: RunSettings, samples: int, limits: ChannelLimits, *, queue: bool) -> _Layer:
    """Return the gather messages that all ranks but 0 send their parents at the end."""
    tree = Tree(settings.workers, settings.branching)
    size = 0 if settings.output == "rows" else SUMMARY_BYTES * samples
    ranks = range(1, settings.workers)
    return _Layer([(gather_step(rank, tree.parent(rank) or 0, size, limits, queue=queue), 1) for rank in ranks], 1.0)


def _count_queue(
    layers: Sequence[_Layer], gathers: _Layer, workers: int, receiving: ReceiveModel, limits: ChannelLimits
) -> Usage:
    total = _Totals(workers)
    for layer in (*layers, gathers):
        total.send(layer)
        for step, times in layer.steps:
            of_all = times * layer.weight
            total.billed[RECEIVED_MESSAGES] += of_all * sum(map(units, step.sizes.tolist()))
            for sent in step.sent.values():
                total.count("sns.publish", of_all * len(sent.batches), of_all * sum(it.units for it in sent.batches))
                total.billed[_EACH] += of_all * sum(it.message_units for it in sent.batches)
        total.receive_by_polls(layer, receiving)
    empty = receiving.waiting_s(workers) / limits.poll_s
    total.count("sqs.receive", empty)
    return total.usage(empty_polls=empty)


def _count_objects(layers: Sequence[_Layer], gathers: _Layer, workers: int, receiving: ReceiveModel) -> Usage:
    total = _Totals(workers)
    for layer in (*layers, gathers):
        total.send(layer)
        for step, times in layer.steps:
            readers = np.unique(step.sources * workers + step.targets).size
            total.count("s3.put", times * layer.weight * len(step.sent))
            total.count("s3.get", times * layer.weight * (readers + sum(step.beyond.values())))
    misses = receiving.waiting_s(workers) * receiving.looks_a_second
    for layer in layers:
        misses += layer.weight * sum(receiving.misses_before(count) for count in total.sources(layer) if count)
    total.count("s3.get", round(misses))
    return total.usage(misses=misses)


def _count_direct(layers: Sequence[_Layer], gathers: _Layer, workers: int) -> Usage:
    total, pairs = _Totals(workers), set[int]()
    for layer in (*layers, gathers):
        total.send(layer)
        for step, _ in layer.steps:
            pairs.update((step.sources * workers + step.targets).tolist())
    total.count("microvm.connect", len(pairs))
    usage = total.usage()
    return replace(usage, body_bytes=usage.received_bytes)  # each target is sent its own copy


class _Totals:
    """Totals over layers; fractional, because a layer may represent a fractional number of layers."""

    def __init__(self, workers: int) -> None:
        self.requests: defaultdict[str, float] = defaultdict(float)  # rounded at the end
        self.billed: defaultdict[str, float] = defaultdict(float)
        self._workers = workers
        self._bytes = np.zeros(4)  # number of frames; bytes of frames, of request bodies, and received

    def count(self, kind: str, requests: float, billed: float | None = None) -> None:
        """Add requests of a kind, and their billed units if those are not one each."""
        self.requests[kind] += requests
        self.billed[kind] += requests if billed is None else billed

    def send(self, layer: _Layer) -> None:
        """Add the frames of a layer, and the bytes that its targets receive."""
        for step, times in layer.steps:
            for sent in step.sent.values():
                self._bytes += times * layer.weight * np.array([sent.frames, sent.wire_bytes, sent.body_bytes, 0.0])
            self._bytes[3] += times * layer.weight * step.sizes.sum()

    def sources(self, layer: _Layer) -> list[int]:
        """Return the number of ranks from which each rank receives."""
        pairs = [step.sources * self._workers + step.targets for step, _ in layer.steps]
        targets = np.unique(np.concatenate([np.zeros(0, np.int64), *pairs])) % self._workers
        counts: list[int] = np.bincount(targets, minlength=self._workers).tolist()
        return counts

    def receive_by_polls(self, layer: _Layer, receiving: ReceiveModel) -> None:
        """Add the polls by which ranks receive the messages of a layer."""
        messages, sizes = np.zeros(self._workers), np.zeros(self._workers)
        for step, times in layer.steps:
            messages += times * np.bincount(step.targets, minlength=self._workers)
            sizes += times * np.bincount(step.targets, step.sizes, self._workers)
        layer_mb = float(sizes.sum()) / 1e6
        for sources, count, size in zip(self.sources(layer), messages.tolist(), sizes.tolist(), strict=True):
            if count:
                polls = receiving.polls_before(sources, count, layer_mb)
                self.count("sqs.receive", layer.weight * polls, layer.weight * polls * units(size / polls))

    def usage(self, *, misses: float = 0.0, empty_polls: float = 0.0) -> Usage:
        """Return the totals, rounded."""
        requests, billed = (
            Counter({kind: round(count) for kind, count in each.items()}) for each in (self.requests, self.billed)
        )
        frames, wire, body, received = (round(value) for value in self._bytes.tolist())
        return Usage(
            requests,
            billed,
            misses=round(misses),
            empty_polls=round(empty_polls),
            frames=frames,
            wire_bytes=wire,
            body_bytes=body,
            received_bytes=received,
        )
