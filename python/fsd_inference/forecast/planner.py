"""The planner: predicts and prices every option, checks it against the limits and ranks the options.

An option is a variant, a number of workers or replicas, and a memory size. Its time comes from `forecast.times`, its
requests from `forecast.counts`, its memory from `forecast.memory`, its price from `cost.model`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from fsd_inference.config import Clocks, RunSettings
from fsd_inference.cost.model import Billing, Cost, run_cost
from fsd_inference.cost.prices import EXPRESS, INSTANCE, MICROVM, PriceTable
from fsd_inference.engine.tree import Tree
from fsd_inference.errors import SettingError
from fsd_inference.forecast.coordination import count_coordinations
from fsd_inference.forecast.counts import count_exchange, count_lane, count_microvms, count_own
from fsd_inference.forecast.cut import Cut, Thinned, thin
from fsd_inference.forecast.exchange_times import ExchangeTotals
from fsd_inference.forecast.frames import ChannelLimits
from fsd_inference.forecast.launch import launch_s
from fsd_inference.forecast.managed_fleet import compared, managed_option
from fsd_inference.forecast.memory import MARGIN, function_mb, rank_bytes
from fsd_inference.forecast.microvms import microvm_limit, microvm_sizes, most_connections
from fsd_inference.forecast.options import MANAGED, Advice, BreakEven, Option, Question
from fsd_inference.forecast.planned_run import PlannedRun, checkpointed_run, whole_run
from fsd_inference.forecast.publishing import stall_problem
from fsd_inference.forecast.reasons import cost_reason, time_reason
from fsd_inference.forecast.servers import INSTANCES, ServerTimes, cluster_times, server_times
from fsd_inference.forecast.speed import burst_vcpus, threads
from fsd_inference.forecast.times import RunTimes, predict_times
from fsd_inference.forecast.timing import PUBLISH_QUOTA, Sourced, Timing
from fsd_inference.limits import (
    DEEPEST_TREE,
    INVOCATION_S,
    LARGEST_FUNCTION_MB,
    MB_PER_VCPU,
)
from fsd_inference.prediction import MicrovmTime
from fsd_inference.units import seconds_text, usd_text
from fsd_inference.usage import Usage

KEPT_WARM_S = 300.0
"""Seconds for which an idle function is assumed to stay warm; AWS documents no value (2026-11)."""
SHORTEST_SERVER_S = 60.0
"""Shortest billed time of an instance in seconds (Amazon EC2 on-demand pricing, 2026-11)."""
_STEP_MB, _LEAST_MB = 64, 256
_SIZES = (MB_PER_VCPU, 2 * MB_PER_VCPU, 4 * MB_PER_VCPU)
_SERIAL_SIZES = (*_SIZES, LARGEST_FUNCTION_MB)
_REPLICAS = (1, 2, 4, 8, 16, 32, 64)
_MICRO_BATCHES = (1, 4)
_BRANCHINGS = (2, 4, 8, 16)
_MOST_SERVERS = 8  # servers of a cluster
_MOST_EDGES = 4000  # edges of a plan beyond which only a sample is evaluated, as the planner's time grows with them
_DAY_S = 86_400.0
_SMITHY = "smithy-rs #3446: mean from EC2, 64 KB, S3 Express"
_EXPRESS = {
    "put.median_s": Sourced(0.012, _SMITHY),
    "put.p99_s": Sourced(0.035, f"{_SMITHY}; spread taken to be S3 standard's"),
    "get.median_s": Sourced(0.016, _SMITHY),
    "get.p99_s": Sourced(0.045, f"{_SMITHY}; spread taken to be S3 standard's"),
    "prefix.puts_per_s": Sourced(200_000, "S3 Express One Zone: of a bucket (AWS, 2026-11)"),
    "prefix.gets_per_s": Sourced(2_000_000, "S3 Express One Zone: of a bucket (AWS, 2026-11)"),
}


def plan_options(
    cuts: Mapping[int, Cut],
    question: Question,
    timing: Timing,
    prices: PriceTable,
    *,
    billing: Billing | None = None,
) -> Advice:
    """Predict, price and rank the options.

    Parameters
    ----------
    cuts : mapping of int to Cut
        The partitioned network by number of workers, including 1.
    question : Question
    timing : Timing
        Values of AWS; a vCPU of a server is assumed to be as fast as that of a function.
    prices : PriceTable
    billing : Billing, optional
        Its storage class is ignored, because the options set it.

    Raises
    ------
    SettingError
        There is no cut for 1 worker, or the price table lacks a price that is needed.
    """
    if 1 not in cuts:
        raise SettingError("the planner needs the network as a single worker runs it: add a cut for 1 worker")
    planner = _Planner(question, timing, prices, billing or Billing())
    found: list[Option] = []
    for workers, cut in sorted(cuts.items()):
        found += planner.serial(cut) if workers == 1 else planner.distributed(cut)
        if workers <= _MOST_SERVERS:
            found += planner.servers(cut)
    fleet = None
    if question.managed_instances is not None:
        option, query_usd = managed_option(
            cuts[1], question, question.managed_instances, timing, prices, billing or Billing(), is_warm=planner.is_warm
        )
        fleet = compared(option, query_usd, found, question)
        found.append(option)
    kept = _kept(found, question)
    return Advice(question, kept, _break_even(kept), fleet, str(prices), str(timing), is_cold=not planner.is_warm)


def express_timing(timing: Timing) -> Timing:
    """Return the timing with the values of S3 Express One Zone for objects."""
    return timing.with_values(f"{timing.name}, S3 Express", _EXPRESS)


class _Planner:
    def __init__(self, question: Question, timing: Timing, prices: PriceTable, billing: Billing) -> None:
        self._question = question
        self._limits = ChannelLimits(message_bytes=question.message_bytes)
        self._timing = timing
        self._express = express_timing(timing)
        self._prices = prices
        self._billing = billing
        often = question.queries_a_day is not None and question.queries_a_day * KEPT_WARM_S >= _DAY_S
        self.is_warm = often if question.cold is None else not question.cold

    # --- functions ---------------------------------------------------------------------------------------------------

    def serial(self, cut: Cut) -> Iterator[Option]:
        """Yield the options of one function, and of replicas of it over slices of the batch."""
        for replicas in (
            count for count in _REPLICAS if count <= min(self._question.samples, self._question.most_workers)
        ):
            payloads = cut.payloads.scaled(math.ceil(self._question.samples / replicas))
            replica = thin(replace(cut, payloads=payloads), _MOST_EDGES)
            need_mb = self._need_mb(replica.cut)
            # The slowest replica determines when the query is answered.
            late = self._timing.latency("begin" if self.is_warm else "cold")
            waited = max(0.0, late.largest_s(replicas) - late.mean_s) if replicas > 1 else 0.0
            settings = RunSettings()
            for memory_mb in self._sizes(need_mb, _SERIAL_SIZES):
                run = self._run(replica, settings, "serial", memory_mb, Usage())
                times = run.times
                cost = self._cost(run, replica.cut, memory_mb, settings, "serial")
                services = {name: replicas * usd for name, usd in cost.by_service().items()}
                option = Option(
                    "serial", times.wall_s + waited, replicas * cost.usd, _megabytes(need_mb), "", 1, replicas,
                    memory_mb, services=services, checkpoint_every=run.course.every, attempts=times.attempts,
                )  # fmt: skip
                yield self._checked(option, need_mb, run, cost)

    def distributed(self, cut: Cut) -> Iterator[Option]:
        """Yield the options of P functions over queues and over objects, and of P MicroVMs."""
        for micro_batches in _MICRO_BATCHES:
            parts = replace(cut, payloads=cut.payloads.scaled(self._question.samples, micro_batches))
            thinned = thin(parts, _MOST_EDGES // micro_batches)
            need_mb = self._need_mb(thinned.cut)
            totals = ExchangeTotals(thinned.cut.plan, thinned.cut.payloads)
            # Not every region has S3 Express and MicroVMs.
            stores = ("object", "express") if EXPRESS in self._prices.prices else ("object",)
            direct = ("direct",) if MICROVM in self._prices.prices else ()
            connections = most_connections(thinned.cut.plan)
            for channel, variants in (("queue", ("queue",)), ("object", stores), ("direct", direct)):
                is_direct = channel == "direct"
                branching = self._branching(cut.workers, microvms=is_direct)
                settings = RunSettings(workers=cut.workers, branching=branching, micro_batches=micro_batches)
                sizes = microvm_sizes(need_mb, connections) if is_direct else self._sizes(need_mb, _SIZES[:2])
                exchange = count_exchange(
                    thinned.cut.plan, thinned.cut.payloads, settings, channel,
                    weights=thinned.exchange_weights, limits=self._limits,
                )  # fmt: skip
                for variant in variants:
                    for memory_mb in sizes:
                        run = self._run(thinned, settings, variant, memory_mb, exchange, totals)
                        cost = self._cost(run, parts, memory_mb, settings, variant)
                        option = Option(
                            variant, run.times.wall_s, cost.usd, _megabytes(need_mb), "", cut.workers, 1, memory_mb,
                            branching, micro_batches, services=cost.by_service(), is_estimated=cut.is_estimated,
                            checkpoint_every=run.course.every, attempts=run.times.attempts,
                        )  # fmt: skip
                        yield self._checked(option, need_mb, run, cost, connections if is_direct else None)

    def _run(
        self,
        thinned: Thinned,
        settings: RunSettings,
        variant: str,
        memory_mb: int,
        exchange: Usage,
        totals: ExchangeTotals | None = None,
    ) -> PlannedRun:
        """Return a run, with checkpoints if the question asks for them; MicroVMs live for hours and need none."""
        times, question = self._times(thinned, settings, variant, memory_mb, totals), self._question
        run = whole_run(thinned, times, exchange)
        if variant == "direct" or question.checkpoint_every == 0:
            return run
        functions = times.function_times(memory_mb, settings.workers, architecture=question.architecture)
        return checkpointed_run(
            thinned, settings, "object" if variant == "express" else variant, run, functions,
            question, self._timing, self._prices, self._limits,
        )  # fmt: skip

    def _times(
        self,
        thinned: Thinned,
        settings: RunSettings,
        variant: str,
        memory_mb: int,
        totals: ExchangeTotals | None = None,
    ) -> RunTimes:
        cut = thinned.cut
        return predict_times(
            cut.plan,
            cut.work,
            cut.payloads,
            replace(settings, threads=math.ceil(burst_vcpus(memory_mb)) if variant == "direct" else threads(memory_mb)),
            "object" if variant == "express" else variant,
            self._express if variant == "express" else self._timing,
            memory_mb=memory_mb,
            warm=settings.workers * self.is_warm,
            weights=thinned.weights,
            limits=self._limits,
            buckets=self._question.buckets,
            totals=totals,
        )

    def _need_mb(self, cut: Cut) -> float:
        stores = self._question.checkpoint_every != 0
        shard = float(cut.work.shard_bytes.max())
        return function_mb(cut.plan, cut.work.inputs, shard, cut.payloads, checkpoints=stores)

    def _sizes(self, need_mb: float, sizes: Iterable[int]) -> list[int]:
        """Return the memory sizes in MB to try: the smallest that suffices, and those of whole vCPUs above it."""
        least = max(_LEAST_MB, math.ceil(need_mb / _STEP_MB) * _STEP_MB)
        if least > self._question.largest_mb:
            return [self._question.largest_mb]  # too small, which the memory limit will report
        return sorted({least, *(size for size in sizes if least < size <= self._question.largest_mb)})

    def _branching(self, workers: int, *, microvms: bool) -> int:
        """Return the branching with which all ranks are started soonest."""
        allowed = [Tree(workers, b) for b in _BRANCHINGS if Tree(workers, b).depth <= DEEPEST_TREE]
        warm = workers * self.is_warm
        return min(
            allowed, key=lambda tree: (launch_s(tree, self._timing, warm=warm, microvms=microvms), tree.branching)
        ).branching

    def _cost(self, run: PlannedRun, cut: Cut, memory_mb: int, settings: RunSettings, variant: str) -> Cost:
        """Price a run: the exchange in the variant's storage class, all its other requests in S3 standard."""
        times, course = run.times, run.course
        functions = times.function_times(memory_mb, settings.workers, architecture=self._question.architecture)
        own = count_own(
            cut.payloads, settings, self._limits, cut.work.shard_bytes,
            is_warm=self.is_warm, stays_warm=True, course=course,
        )  # fmt: skip
        own += count_coordinations(settings, times, course, is_warm=self.is_warm)
        if variant == "queue":
            # The queues that an attempt has used which hands on are purged.
            own += sum([count_lane(settings.workers)] * (times.attempts - 1), count_lane(0))
        microvms: tuple[MicrovmTime, ...] = ()
        if variant == "direct":
            own += count_microvms(settings.workers)
            functions = functions[1:]  # the coordinator's
            microvms = (times.microvm_time(memory_mb, settings.workers),)
        standard = replace(self._billing, storage="standard")
        billing = replace(standard, storage="express") if variant == "express" else standard
        samples = sum(cut.payloads.samples)
        whole = run_cost(run.exchange, functions, self._prices, samples=samples, billing=billing, microvms=microvms)
        more = run_cost(own, (), self._prices, samples=samples, billing=standard)
        return replace(whole, lines=(*whole.lines, *more.lines))

    def _checked(
        self, option: Option, need_mb: float, run: PlannedRun, cost: Cost, connections: int | None = None
    ) -> Option:
        """Return an option on functions or MicroVMs with its reason and the first limit that it exceeds.

        `connections` is the number of connections to a MicroVM; None for functions.
        """
        assert option.memory_mb is not None  # noqa: S101 - no server
        times = run.times
        reason = f"{time_reason(times, self._timing)}; {cost_reason(cost)}{run.note}"
        longest = times.functions_s / option.workers / times.attempts
        if connections is not None:
            limited = microvm_limit(option.workers, connections, option.memory_mb, need_mb, longest)
        else:
            limited = self._function_limit(option.memory_mb, need_mb, run, longest)
        if limited is not None:
            return replace(option, reason=reason, limit=limited[0], problem=limited[1])
        if connections is None and longest > self._question.timeout_s:
            reason += f"; the stack's timeout_s and longest_run_s must be more than {self._question.timeout_s:.0f}"
        return self._question.checked(replace(option, reason=reason))

    def _function_limit(
        self, memory_mb: int, need_mb: float, run: PlannedRun, longest: float
    ) -> tuple[str, str] | None:
        """Return the limit that functions exceed and how; None if they exceed none."""
        times = run.times
        if need_mb > memory_mb:
            return "memory", f"memory does not fit: it needs {need_mb:,.0f} MB, the largest function has {memory_mb:,}"
        quota = self._timing[PUBLISH_QUOTA]
        if stalls := stall_problem(times.longest_publishing_s, quota, Clocks()):
            return "quota", stalls
        if run.is_stuck:
            return "invocation", (
                f"no checkpoint would be complete within the {self._question.timeout_s:.0f} s that a function may run: "
                "use more workers, or checkpoints after fewer layers"
            )
        if longest <= INVOCATION_S:
            return None
        said = f"a function would run for {seconds_text(longest)}, and may run for {INVOCATION_S:.0f} s"
        if longest - times.paced_s > INVOCATION_S:
            return "invocation", f"{said}: --checkpoint-every auto hands the run on to other functions"
        return "quota", (
            f"{said}; {seconds_text(times.paced_s)} of it is waiting to publish at most {quota:,.0f} messages a second"
        )

    # --- servers -----------------------------------------------------------------------------------------------------

    def servers(self, cut: Cut) -> Iterator[Option]:
        """Yield the options of a server started for the query and of one always on; clusters of P servers for P > 1."""
        count, payloads = cut.workers, cut.payloads.scaled(self._question.samples)
        thinned = thin(replace(cut, payloads=payloads), _MOST_EDGES)
        seen = thinned.cut
        shard = float(seen.work.shard_bytes.max())
        need = MARGIN * rank_bytes(seen.plan, seen.work.inputs, shard, seen.payloads)
        totals = ExchangeTotals(seen.plan, seen.payloads)
        for instance, (_, gib) in INSTANCES.items():
            if (priced := self._prices.prices.get(f"{INSTANCE}{instance}")) is None:
                continue  # a price table need not have every instance type
            an_hour = count * priced.usd(1)
            if count == 1:
                times = server_times(cut.work, payloads, self._timing, instance)
            else:
                times = cluster_times(
                    seen.plan, seen.work, seen.payloads, self._timing, instance, weights=thinned.weights, totals=totals
                )
            whole = Option(
                "server" if count == 1 else "cluster", 0.0, None, need / MARGIN / 1e6, "", count,
                instance=instance, is_estimated=cut.is_estimated,
            )  # fmt: skip
            for option in (self._job(whole, times, an_hour), self._always_on(whole, times, 24 * an_hour)):
                if need > gib * 2**30:
                    said = f"memory does not fit: it needs {need / 1e6:,.0f} MB, a server has {gib} GiB"
                    yield replace(option, limit="memory", problem=said)
                else:
                    yield self._question.checked(option)

    @staticmethod
    def _job(whole: Option, times: ServerTimes, an_hour: float) -> Option:
        usd = max(SHORTEST_SERVER_S, times.job_s) / 3600 * an_hour
        they = "it runs" if whole.workers == 1 else "they run"
        reason = f"{times.boot_s:.0f} s until {they}, {seconds_text(times.load_s)} to load the network"
        variant = f"job {whole.variant}"
        return replace(whole, variant=variant, wall_s=times.job_s, usd=usd, services={"EC2": usd}, reason=reason)

    def _always_on(self, whole: Option, times: ServerTimes, a_day: float) -> Option:
        queries, wall_s = self._question.queries_a_day, times.always_on_s
        usd = None if queries is None else a_day / queries
        problem = None
        if queries is None:
            problem = "its cost depends on the number of queries a day: give that"
        elif queries * wall_s > _DAY_S:
            problem = f"one {whole.variant} answers {_DAY_S / wall_s:,.0f} queries a day, not {queries:,.0f}"
        idle = "" if queries is None else f", idle {max(0.0, 1 - queries * wall_s / _DAY_S):.1%} of the day"
        return replace(
            whole,
            variant=f"always-on {whole.variant}",
            wall_s=wall_s,
            usd=usd,
            reason=f"USD {usd_text(a_day)} a day{idle}",
            usd_a_day=a_day,
            services=None if usd is None else {"EC2": usd},
            problem=problem,
            limit=problem and "rate",
        )


def _megabytes(need_mb: float) -> float:
    """Return the peak memory of the largest rank in MB (10**6 bytes), given a function's memory in MB (2**20 bytes)."""
    return need_mb / MARGIN * 2**20 / 1e6


def _kept(found: Iterable[Option], question: Question) -> tuple[Option, ...]:
    """Return, ranked, the best option of each variant, number of workers and replicas, and all Pareto-optimal ones."""
    ranked = sorted(found, key=question.prefers)
    fastest = math.inf
    efficient: set[int] = set()
    # Deadline and budget do not count here: the Pareto front is the same for every question.
    for option in sorted((o for o in ranked if o.usd is not None), key=lambda o: (o.usd, o.wall_s)):
        if option.wall_s < fastest and option.limit in {None, "deadline", "budget"}:
            fastest = option.wall_s
            efficient.add(id(option))
    kept, seen = [], set()
    for option in ranked:
        kind = (option.variant, option.workers, option.replicas, option.instance)
        if kind not in seen or id(option) in efficient:
            kept.append(replace(option, is_pareto=id(option) in efficient))
        seen.add(kind)
    return tuple(kept)


def _break_even(options: Iterable[Option]) -> BreakEven | None:
    """Compare the best feasible functions with the cheapest always-on server that fits and keeps the deadline."""
    options = list(options)
    functions = next((o for o in options if not o.is_server and o.problem is None), None)
    # Rate and budget depend on the number of queries a day, which is the variable here.
    servers = [
        o for o in options if o.usd_a_day is not None and o.variant != MANAGED and o.limit in {None, "rate", "budget"}
    ]
    if functions is None or not servers:
        return None
    server = min(servers, key=lambda o: o.usd_a_day or 0.0)
    assert functions.usd is not None  # noqa: S101 - functions have a price
    assert server.usd_a_day is not None  # noqa: S101 - chosen by it
    return BreakEven(server.usd_a_day / functions.usd, server.servers, server.usd_a_day, _DAY_S / server.wall_s)
