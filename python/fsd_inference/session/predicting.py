"""What a run will ask for and how long it takes, before it is made, as it is going to be carried out.

Requests and bytes are `cost.volumes`', on functions `cost.coordination`'s too. Times are those of `cost.times` on AWS;
where ranks share this machine, processes or the functions of an emulator, the run is simulated.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy import sparse

from fsd_inference.config import RunSettings
from fsd_inference.cost.coordination import count_coordination
from fsd_inference.cost.cut import with_samples
from fsd_inference.cost.frames import Payloads
from fsd_inference.cost.metered import COORDINATOR_MB
from fsd_inference.cost.simulator import Scenario, simulate
from fsd_inference.cost.times import predict_times
from fsd_inference.cost.timing import Sourced, Timing, load_timing
from fsd_inference.cost.volumes import predict_object, predict_queue, predict_serial
from fsd_inference.cost.work import Speed, Work, vcpus
from fsd_inference.limits import MB_PER_VCPU
from fsd_inference.network import Network
from fsd_inference.partition.plan import ExchangePlan, Partition
from fsd_inference.prediction import FunctionTime, Prediction
from fsd_inference.session.sampling import sample_payloads
from fsd_inference.session.work import rank_work, whole_plan, whole_work
from fsd_inference.stack_description import StackSpec
from fsd_inference.usage import Usage

_SAMPLES, _EDGES = 512, 16
"""Samples of the batch that are pushed through the network, and edges of an exchange that are packed, at most."""


@dataclass(frozen=True, slots=True)
class Carried:
    """A plan, and what carries out its runs.

    Attributes
    ----------
    partition, plan
        What is run.
    channel : str
    settings : RunSettings
    stack : StackSpec or None
        None where no service is asked.
    memory_mb : int or None
        Of the worker functions; None for processes.
    is_warm : bool
        Whether functions that have run this network are there still.
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
        """Whether its services are those of AWS itself."""
        return self.stack is not None and self.stack.endpoint_url is None


def payloads_of(
    network: Network, plan: ExchangePlan, x: sparse.csr_array, known: Payloads | None, micro_batches: int
) -> Payloads:
    """Return the sizes of what a plan's edges carry for a batch: those that are known of it, or sampled ones."""
    fits = known is not None and [len(edges) for edges in plan.exchanges] == [len(each) for each in known.exchanges]
    if known is None or not fits:
        (known,) = sample_payloads(
            network,
            [plan],
            x,
            samples=x.shape[0],
            micro_batches=micro_batches,
            most_samples=_SAMPLES,
            most_edges=_EDGES,
        )
    return with_samples(known, x.shape[0], micro_batches)


def predict_runs(
    network: Network, carried: Carried, x: sparse.csr_array, sizes: Sequence[int], known: Payloads | None = None
) -> Prediction:
    """Predict a run, or replicas of it over slices of the batch.

    Parameters
    ----------
    network : Network
    carried : Carried
    x : csr_array of float32, samples x features
        The batch.
    sizes : sequence of int
        Samples of each slice; one for a run of the whole batch.
    known : Payloads, optional
        What the plan's edges carry, if that is known already for some number of samples.
    """
    payloads = payloads_of(network, carried.plan, x, known, carried.settings.micro_batches)
    work = rank_work(network, carried.partition)
    usage, seconds, coordinated, wall_s = Usage(), 0.0, 0.0, 0.0
    for size, count in Counter(sizes).items():
        part = with_samples(payloads, size, carried.settings.micro_batches)
        times = _on_aws(carried, work, part) if carried.is_on_aws else _on_this_host(carried, work, part, len(sizes))
        asked = _usage(carried, part, times)
        usage = sum([asked] * count, usage)
        seconds += count * times.functions_s
        coordinated += count * times.wall_s
        wall_s = max(wall_s, times.wall_s)
    workers = carried.settings.workers * len(sizes)
    functions = (
        FunctionTime(carried.memory_mb or MB_PER_VCPU, "x86_64", seconds, workers),
        FunctionTime(COORDINATOR_MB, "x86_64", coordinated, len(sizes)),
    )
    return Prediction(usage, functions, wall_s)


def predict_alone(
    network: Network, settings: RunSettings, x: sparse.csr_array, sizes: Sequence[int], *, is_loaded: bool
) -> Prediction:
    """Predict a batch in this process alone, priced as if its replicas were functions."""
    plan = whole_plan(network)
    payloads, work = payloads_of(network, plan, x, None, 1), whole_work(network)
    timing = load_timing("emulator")
    one = float(Speed(timing).compute_s(work, payloads).sum())
    cores = os.cpu_count() or 1
    computing = one / min(cores, settings.threads * len(sizes))
    loading = 0.0 if is_loaded else float(work.shard_bytes.sum()) / timing["cpu.load_bytes_per_s"]
    wall_s, count = loading + computing, len(sizes)
    spans = wall_s if count == 1 else computing  # replicas begin once the network is there
    functions = (
        FunctionTime(MB_PER_VCPU, "x86_64", count * spans, count),
        FunctionTime(COORDINATOR_MB, "x86_64", count * wall_s, count),
    )
    return Prediction(Usage(), functions, wall_s)


@dataclass(frozen=True, slots=True)
class _Times:
    """Of one run: seconds from asking to the answer, of rank 0's life, and of all ranks; what a simulation counted."""

    wall_s: float
    run_s: float
    functions_s: float
    usage: Usage


def _on_aws(carried: Carried, work: Work, payloads: Payloads) -> _Times:
    settings, memory_mb = carried.settings, carried.memory_mb or MB_PER_VCPU
    settings = replace(settings, threads=max(1, round(vcpus(memory_mb))))
    times = predict_times(
        carried.plan, work, payloads, settings, carried.channel, load_timing("aws"),
        memory_mb=memory_mb, warm=settings.workers * carried.is_warm,
    )  # fmt: skip
    return _Times(times.wall_s, times.run_s, times.functions_s, Usage())


def _on_this_host(carried: Carried, work: Work, payloads: Payloads, runs: int) -> _Times:
    channel = "object" if carried.channel == "serial" else carried.channel  # there is nothing to exchange
    stack = carried.stack
    scenario = Scenario(
        carried.partition,
        carried.plan,
        work,
        payloads,
        carried.settings,
        channel,
        _of_this_host(runs - 1),
        memory_mb=None,
        buckets=1 if stack is None else len(stack.run_buckets),
        lane_ranks=None if stack is None else stack.ranks,
    )
    run = simulate(scenario)
    if run.error is not None:
        raise run.error
    spans = [rank.ended - rank.started for rank in run.ranks]
    return _Times(run.wall_s, spans[0], sum(spans), run.usage)


def _of_this_host(others: int) -> Timing:
    cores = Sourced(os.cpu_count() or 1, "of this machine")
    beside = Sourced(others, "replicas of the same batch")
    return load_timing("emulator").with_values("this host", {"host.cores": cores, "host.others": beside})


def _usage(carried: Carried, payloads: Payloads, times: _Times) -> Usage:
    settings, plan, stack = carried.settings, carried.plan, carried.stack
    on_functions = carried.memory_mb is not None
    if stack is None or not (on_functions or carried.is_on_aws or carried.channel == "serial"):  # it was simulated
        return times.usage
    if carried.channel == "serial":
        usage = predict_serial(payloads, settings)
    elif carried.channel == "queue":
        usage = predict_queue(plan, payloads, settings, lane_ranks=stack.ranks)
    else:
        usage = predict_object(plan, payloads, settings, buckets=0 if on_functions else len(stack.run_buckets))
    if on_functions:
        count_coordination(usage, settings, wall_s=times.wall_s, run_s=times.run_s, is_warm=carried.is_warm)
    return usage
