"""Predicted duration of each exchange, from each rank's total numbers of edges and bytes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fsd_inference.forecast.frames import ChannelLimits, Floats
from fsd_inference.forecast.payloads import Payloads
from fsd_inference.forecast.speed import Speed
from fsd_inference.forecast.timing import REQUESTS, Latency, Timing
from fsd_inference.forecast.work import Work
from fsd_inference.limits import BATCH_ENTRIES, READERS, SENDERS
from fsd_inference.partitioning.plan import ExchangePlan

HOPS = {"queue": ("publish", "deliver", "receive"), "object": ("put", "get"), "direct": ("frame",)}
"""The latencies that a frame incurs from sender to receiver, by channel."""


class ExchangeTotals:
    """Totals of what each rank sends and receives in each exchange, for an average micro-batch.

    Parameters
    ----------
    plan : ExchangePlan
    payloads : Payloads
        Sizes of what this plan's edges carry.

    Attributes
    ----------
    sent, got : ndarray of float64, exchanges x P
        Payload bytes that a rank sends and receives.
    frames, sources : ndarray of float64, exchanges x P
        Number of edges over which a rank sends and receives.
    posted, targets : ndarray of float64, exchanges x P
        Payload bytes that a rank sends if each target gets its own copy, and number of its targets.
    pairs : ndarray of int64, exchanges
        Number of pairs of a sender and a receiver.
    """

    def __init__(self, plan: ExchangePlan, payloads: Payloads) -> None:
        self._shape = len(plan.exchanges), plan.workers
        edges = [(layer * plan.workers, edge) for layer, exchange in enumerate(plan.exchanges) for edge in exchange]
        sizes = np.concatenate([np.zeros(0), *(of_layer.mean(axis=1) for of_layer in payloads.exchanges)])
        counts = np.array([len(edge.targets) for _, edge in edges], np.int64)
        source = np.array([start + edge.source for start, edge in edges], np.int64)
        target = np.fromiter((start + rank for start, edge in edges for rank in edge.targets), np.int64, counts.sum())
        self.sent, self.frames = self._sums(source, sizes), self._sums(source)
        self.got, self.sources = self._sums(target, np.repeat(sizes, counts)), self._sums(target)
        pairs = np.unique(np.repeat(source, counts) * plan.workers + target % plan.workers)
        self.pairs = np.bincount(pairs // plan.workers**2, minlength=len(plan.exchanges))
        self.posted, self.targets = self._sums(source, sizes * counts), self._sums(pairs // plan.workers)
        rows: Floats = np.zeros(math.prod(self._shape))
        np.maximum.at(rows, source, np.array([edge.rows.size for _, edge in edges], np.float64))
        self._rows = rows.reshape(self._shape)  # rows of a rank's largest edge

    def _sums(self, places: NDArray[np.int64], values: Floats | None = None) -> Floats:
        return np.bincount(places, values, math.prod(self._shape)).astype(np.float64).reshape(self._shape)

    def boundary_share(self, work: Work) -> Floats:
        """Estimate the share of a rank's rows that other ranks need, exchanges x P, by the rows of its largest edge."""
        widths = np.array(work.inputs[1 : 1 + self._shape[0]], np.float64)
        owned = np.maximum(1.0, widths / work.workers)
        share: Floats = np.minimum(1.0, self._rows / owned[:, None])
        return share

    def messages(self, limits: ChannelLimits) -> Floats:
        """Return the messages that each rank publishes over `queue` in each exchange, exchanges x P."""
        found: Floats = np.maximum(self.frames, np.ceil(self.sent / limits.queue_frame_bytes))
        return found

    def rationed_s(self, channel: str, timing: Timing, buckets: int) -> Floats:
        """Return the seconds in which S3 admits the requests of each exchange, for an average micro-batch."""
        if channel != "object":
            return np.zeros(self._shape[0])
        writes_s = np.count_nonzero(self.frames, axis=1) / timing["prefix.puts_per_s"]
        admitted: Floats = np.maximum(writes_s, self.pairs / timing["prefix.gets_per_s"]) / buckets
        return admitted

    def exchange_s(
        self, channel: str, timing: Timing, speed: Speed, limits: ChannelLimits
    ) -> tuple[Floats, Floats, Floats]:
        """Return the seconds of transfer, those of its receiving part, and those of packing and unpacking.

        Each is exchanges x P, for an average micro-batch.
        """
        one = speed.one
        packing: Floats = (
            self.sent / timing["cpu.pack_bytes_per_s"] + self.got / timing["cpu.unpack_bytes_per_s"]
        ) / one
        work_s = {name: timing[f"cpu.{name}_s"] / one for name in REQUESTS}
        message_s = timing["cpu.message_s"] / one
        byte_s = {name: 1 / timing[f"cpu.{name}_bytes_per_s"] / one for name in REQUESTS}
        network = timing["network.bytes_per_s"]
        largest = {name: self._largest_s(timing.latency(name)) for name in HOPS.get(channel, ())}
        if channel == "queue":
            sent, got = self.sent * 4 / 3, self.got * 4 / 3
            batches = np.maximum(np.ceil(self.frames / BATCH_ENTRIES), np.ceil(sent / limits.message_bytes))
            turns = np.ceil(batches / SENDERS)
            sending = batches * work_s["publish"] + self.frames * message_s
            sending = sending + turns * largest["publish"] + sent * byte_s["publish"] + sent / network
            polls = np.ceil(self.sources / BATCH_ENTRIES)
            receiving = polls * (timing.latency("receive").mean_s + work_s["receive"]) + self.sources * message_s
            receiving = receiving + got * byte_s["receive"] + got / network
            return sending.max(axis=1, keepdims=True) + largest["deliver"] + receiving, receiving, packing
        if channel == "object":
            sending = work_s["put"] + largest["put"] + self.sent * byte_s["put"] + self.sent / network
            # The object expected last is polled at intervals of about an eighth of the wait; then the others are read.
            reads = 1 + np.ceil(np.maximum(0, self.sources - 1) / READERS)
            wait = sending.max(axis=1, keepdims=True)
            receiving = wait / 16 + reads * (timing.latency("get").largest_s(READERS) + work_s["get"])
            receiving = receiving + self.got * byte_s["get"] + self.got / network
            return wait + receiving, receiving, packing
        if channel == "direct":
            sending = self.targets * work_s["put"] + self.posted * byte_s["put"] + self.posted / network
            endpoint = timing["endpoint.bytes_per_vcpu_s"] * speed.vcpus
            receiving = self.sources * work_s["get"] + self.got * byte_s["get"] + self.got / min(endpoint, network)
            return sending.max(axis=1, keepdims=True) + largest["frame"] + receiving, receiving, packing
        is_mpi = channel == "mpi"
        latency = timing["mpi.latency_s"] if is_mpi else 0.0
        bandwidth = timing["mpi.bytes_per_s" if is_mpi else "connection.bytes_per_s"]
        travelling = latency + (self.sent / bandwidth).max(axis=1, keepdims=True) + self.got / bandwidth
        return travelling, self.got / bandwidth, packing

    def _largest_s(self, latency: Latency) -> Floats:
        """Return the latency in seconds of a rank's slowest source, exchanges x 1: about the largest of its draws."""
        draws = [max(1, round(mean)) for mean in self.sources.mean(axis=1).tolist()]
        found = {count: latency.largest_s(count) for count in set(draws)}
        return np.array([[found[count]] for count in draws])
