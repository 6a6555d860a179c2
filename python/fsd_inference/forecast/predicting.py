"""Prediction of a run's requests and time, made before the run on the stack or host that will carry it out.

Times come from `forecast.times`. On AWS each function has processors of its own; on this machine the processes, or the
functions of an emulator, share its cores.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy import sparse

from fsd_inference.config import RunSettings
from fsd_inference.cost.prices import load_prices
from fsd_inference.forecast.coordination import count_coordinations
from fsd_inference.forecast.counts import count_exchange, count_lane, count_own, count_sweeps
from fsd_inference.forecast.course import Course
from fsd_inference.forecast.frames import ChannelLimits
from fsd_inference.forecast.handing_on import HandingOn, Prices, function_limit, stored
from fsd_inference.forecast.payloads import Payloads
from fsd_inference.forecast.sampling import sample_payloads
from fsd_inference.forecast.speed import Speed, threads, vcpus
from fsd_inference.forecast.times import RunTimes, predict_times
from fsd_inference.forecast.timing import Timing, load_timing
from fsd_inference.forecast.work import Work, rank_work, whole_plan, whole_work
from fsd_inference.limits import COORDINATOR_MB, MB_PER_VCPU
from fsd_inference.network import Network
from fsd_inference.partitioning.plan import ExchangePlan, Partition
from fsd_inference.prediction import FunctionTime, Prediction
from fsd_inference.stack_description import StackSpec
from fsd_inference.usage import Usage

_SAMPLES, _EDGES = 512, 16
"""Maximum samples of the batch in the sampling forward pass, and maximum edges of each exchange that are packed."""


@dataclass(frozen=True, slots=True)
class Carried:
    """A partitioned network, and the platform that carries out its runs.

    Attributes
    ----------
    partition : Partition
    plan : ExchangePlan
    channel : str
    settings : RunSettings
    stack : StackSpec or None
        The AWS or emulated stack whose services the runs use; None if they use none.
    memory_mb : int or None
        Memory in MB of each worker function; None for local processes.
    is_warm : bool
        Whether functions that have run this network before are still warm.
    """

    partition: Partition
    plan: ExchangePlan
    channel: str
    settings: RunSettings
    stack: StackSpec | None
    memory_mb: int | None
    is_warm: bool

    @property
    def is_on_aws(self) -> bool:
        """Whether the ranks use AWS itself: functions of an emulator share this machine's processors."""
        return self.stack is not None and self.stack.endpoint_url is None

    @property
    def buckets(self) -> int:
        """The number of buckets over which `object` spreads its objects."""
        return 1 if self.stack is None else len(self.stack.run_buckets)


def payloads_of(
    network: Network,
    plan: ExchangePlan,
    x: sparse.csr_array,
    known: Payloads | None,
    micro_batches: int,
    wire: str = "float32",
) -> Payloads:
    """Return the payload sizes of a plan for a batch, scaled from `known` if that fits the plan, or else sampled."""
    if known is None or not known.fits(plan):
        (known,) = sample_payloads(
            network,
            [plan],
            x,
            samples=x.shape[0],
            micro_batches=micro_batches,
            most_samples=_SAMPLES,
            most_edges=_EDGES,
            wire=wire,
        )
    return known.scaled(x.shape[0], micro_batches)


def predict_runs(
    network: Network, carried: Carried, x: sparse.csr_array, sizes: Sequence[int], known: Payloads | None = None
) -> Prediction:
    """Predict the usage and time of a run, or of replicas of it over slices of the batch.

    Parameters
    ----------
    network : Network
    carried : Carried
    x : csr_array of float32, samples x features
        The batch.
    sizes : sequence of int
        Number of samples in each slice; a single one for a run of the whole batch.
    known : Payloads, optional
        Payload sizes of the plan, if already known for any number of samples.
    """
    payloads = payloads_of(network, carried.plan, x, known, carried.settings.micro_batches, carried.settings.wire)
    work = rank_work(network, carried.partition)
    memory_mb = carried.memory_mb or MB_PER_VCPU
    usage, seconds, coordinated, wall_s = Usage(), 0.0, 0.0, 0.0
    started, stored_bytes, attempts = 0, 0.0, 1
    for size, count in Counter(sizes).items():
        part = payloads.scaled(size, carried.settings.micro_batches)
        times = _times(carried, work, part, len(sizes))
        handing_on = _handing_on(carried, work, part, times, len(sizes))
        course = handing_on.course(carried.settings.checkpoint_every)
        if course is not None:  # otherwise it ends at the time limit of its functions, but no prediction says so
            times = handing_on.times(course)
        else:
            course = Course.whole(work.layers, carried.settings.checkpoint_every, times.run_s)
        usage = sum([_usage(carried, work, part, times, course)] * count, usage)
        started += count * times.attempts
        stored_bytes += count * course.checkpoints * handing_on.checkpoint_bytes
        attempts = max(attempts, times.attempts)
        of_workers, of_coordinator = times.function_times(memory_mb, carried.settings.workers)
        seconds += count * of_workers.seconds
        coordinated += count * of_coordinator.seconds
        wall_s = max(wall_s, times.wall_s)
    functions = (
        FunctionTime(memory_mb, "x86_64", seconds, carried.settings.workers * started),
        FunctionTime(COORDINATOR_MB, "x86_64", coordinated, started),
    )
    return Prediction(
        usage, functions, wall_s, payloads.live, carried.settings.checkpoint_every, round(stored_bytes), attempts
    )


def choose_checkpoints(network: Network, carried: Carried, payloads: Payloads, runs: int) -> int:
    """Return the number of layers between checkpoints that costs least on AWS; 0 for none.

    Parameters
    ----------
    network : Network
    carried : Carried
        Without checkpoints.
    payloads : Payloads
        Payload sizes of the plan for the largest run.
    runs : int
        Number of concurrent runs.
    """
    settings, stack = carried.settings, carried.stack
    work = rank_work(network, carried.partition)
    times = _times(carried, work, payloads, runs)
    functions = times.function_times(carried.memory_mb or MB_PER_VCPU, settings.workers)
    exchange = None
    if stack is not None:
        exchange = count_exchange(carried.plan, payloads, settings, carried.channel, limits=_limits(stack))
    paid = Prices.of_run(times, functions, exchange, load_prices())
    return _handing_on(carried, work, payloads, times, runs).choose(paid)


def foreseen_connection_s(
    carried: Carried, inputs: Sequence[int], sizes: Sequence[int], live: Sequence[float] = ()
) -> tuple[float, ...]:
    """Return the foreseen kernel seconds of a connection and sample in each layer, to three digits.

    Parameters
    ----------
    carried : Carried
    inputs : sequence of int
        Number of neurons that each layer reads.
    sizes : sequence of int
        Number of samples in each micro-batch.
    live : sequence of float, optional
        Fraction of samples that are not all zero after each layer, if that is known; by default all are live.
    """
    kernel_threads = threads(carried.memory_mb or MB_PER_VCPU) if carried.is_on_aws else carried.settings.threads
    speed = Speed(_timing(carried), _vcpus(carried), kernel_threads)
    seconds = speed.connection_s(inputs, sizes, live).sum(axis=1) / sum(sizes)
    return tuple(float(f"{each:.3g}") for each in seconds)


def predict_alone(
    network: Network, settings: RunSettings, x: sparse.csr_array, sizes: Sequence[int], *, is_loaded: bool
) -> Prediction:
    """Predict a batch that this process computes alone, with function times as if its replicas were functions."""
    plan = whole_plan(network)
    payloads, work = payloads_of(network, plan, x, None, 1), whole_work(network)
    timing = load_timing("emulator")
    one = float(Speed(timing).compute_s(work, payloads).sum())
    cores = os.cpu_count() or 1
    computing = one / min(cores, settings.threads * len(sizes))
    loading = 0.0 if is_loaded else float(work.shard_bytes.sum()) / timing["cpu.load_bytes_per_s"]
    wall_s, count = loading + computing, len(sizes)
    spans = wall_s if count == 1 else computing  # replicas start after the network is loaded
    functions = (
        FunctionTime(MB_PER_VCPU, "x86_64", count * spans, count),
        FunctionTime(COORDINATOR_MB, "x86_64", count * wall_s, count),
    )
    return Prediction(Usage(), functions, wall_s)


def _times(carried: Carried, work: Work, payloads: Payloads, runs: int) -> RunTimes:
    """Predict the times of one of `runs` concurrent runs."""
    settings, limits, timing = carried.settings, _limits(carried.stack), _timing(carried)
    if carried.is_on_aws:
        memory_mb = carried.memory_mb or MB_PER_VCPU
        return predict_times(
            carried.plan, work, payloads, replace(settings, threads=threads(memory_mb)), carried.channel,
            timing, memory_mb=memory_mb, warm=settings.workers * carried.is_warm, limits=limits,
            buckets=carried.buckets,
        )  # fmt: skip
    cores = _cores(runs)
    return predict_times(carried.plan, work, payloads, settings, carried.channel, timing, cores=cores, limits=limits)


def _timing(carried: Carried) -> Timing:
    if carried.stack is None or not carried.is_on_aws:
        return load_timing("emulator")
    return load_timing("aws", publish_quota=carried.stack.publish_per_s)


def _cores(runs: int) -> float:
    """Return the cores of this machine that each of `runs` concurrent runs has."""
    return (os.cpu_count() or 1) / runs


def _vcpus(carried: Carried, runs: int = 1) -> float:
    """Return the processors that each rank of one of `runs` concurrent runs has."""
    if carried.is_on_aws:
        return vcpus(carried.memory_mb or MB_PER_VCPU)
    return _cores(runs * carried.settings.workers)


def _handing_on(carried: Carried, work: Work, payloads: Payloads, times: RunTimes, runs: int) -> HandingOn:
    """Return the checkpoints and hand-ons of one of `runs` concurrent runs."""
    stack, timing, limit = carried.stack, _timing(carried), None
    if carried.memory_mb is not None and stack is not None and stack.functions is not None:
        # With more lanes, an attempt takes another one than the attempt before.
        waits = carried.channel == "queue" and len(stack.lanes) == 1
        limit = function_limit(timing, stack.functions.timeout_s, stack.purge_settle_s if waits else 0.0)
    takes = stored(carried.plan, work, payloads, timing, Speed(timing, _vcpus(carried, runs)))
    return HandingOn(times, carried.settings.workers, [1.0] * work.layers, takes, limit)


def _limits(stack: StackSpec | None) -> ChannelLimits:
    """Return the channels' limits on a stack, whose topics say how large a message may be."""
    return ChannelLimits() if stack is None else ChannelLimits(message_bytes=stack.message_bytes)


def _usage(carried: Carried, work: Work, payloads: Payloads, times: RunTimes, course: Course) -> Usage:
    """Return the usage of one run on its channel and platform."""
    settings, stack, limits = carried.settings, carried.stack, _limits(carried.stack)
    weights = course.sends().tolist()
    exchange = count_exchange(carried.plan, payloads, settings, carried.channel, weights=weights, limits=limits)
    if stack is None:  # local processes that use no service
        size = exchange.wire_bytes
        return Usage(frames=exchange.frames, wire_bytes=size, body_bytes=size, received_bytes=exchange.received_bytes)
    on_functions = carried.memory_mb is not None
    is_warm = on_functions and carried.is_warm
    usage = exchange + count_own(
        payloads, settings, limits, work.shard_bytes, is_warm=is_warm, stays_warm=on_functions, course=course
    )
    if carried.channel == "queue":
        usage += count_lane(0 if stack.purge_settle_s else stack.ranks, kept_s=0.0 if on_functions else times.run_s)
        usage += sum([count_lane(stack.ranks)] * (times.attempts - 1), Usage())  # which purge what they have left
    if carried.channel == "object" and not on_functions:  # functions leave their objects to expire
        usage += count_sweeps(carried.buckets, exchange.requests["s3.put"], len(course.attempts))
    if on_functions:
        usage += count_coordinations(settings, times, course, is_warm=is_warm)
    return usage
