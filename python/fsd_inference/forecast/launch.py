"""The launch study: the time to start all ranks, through trees of different branching and from a single launcher."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fsd_inference.engine.tree import Tree
from fsd_inference.errors import SettingError
from fsd_inference.forecast.draws import Draws
from fsd_inference.forecast.timing import Timing
from fsd_inference.limits import DEEPEST_TREE, STARTERS
from fsd_inference.token_bucket import TokenBucket


@dataclass(frozen=True, slots=True)
class Launch:
    """The time to start P ranks by a launch tree.

    Attributes
    ----------
    workers : int
        Number of ranks P.
    branching : int
        Ranks that each rank starts; P - 1 means that rank 0 starts all others.
    depth : int
        Levels of the tree, that of rank 0 included.
    median_s, slowest_s : float
        Median and maximum over the runs of the seconds from the start of rank 0 to that of the last rank.
    """

    workers: int
    branching: int
    depth: int
    median_s: float
    slowest_s: float

    @property
    def is_allowed(self) -> bool:
        """Whether the tree is shallow enough for AWS's limit on chains of invocations."""
        return self.depth <= DEEPEST_TREE


def study_launch(
    timing: Timing,
    workers: Iterable[int],
    branchings: Iterable[int],
    *,
    runs: int = 11,
    warm: int = 0,
    seed: int = 0,
) -> Iterator[Launch]:
    """Yield, for each number of ranks, the launch by each branching, then that by a single launcher.

    Parameters
    ----------
    timing : Timing
    workers, branchings : iterable of int
        Numbers of ranks, and ranks that each rank starts.
    runs : int
        Number of simulated launches, each with latencies of its own.
    warm : int
        Number of warm function environments.
    seed : int

    Raises
    ------
    SettingError
        `runs`, a number of ranks or a branching is below 1.
    """
    branchings = tuple(branchings)
    if runs < 1:
        raise SettingError(f"runs must be at least 1, not {runs}")
    for count in workers:
        for branching in dict.fromkeys((*(b for b in branchings if b < count - 1), max(1, count - 1))):
            if count < 1 or branching < 1:
                raise SettingError(f"workers and branching must be at least 1, not {count} and {branching}")
            tree = Tree(count, branching)
            found = sorted(launch_s(tree, timing, warm=warm, seed=seed + run) for run in range(runs))
            yield Launch(count, branching, tree.depth, found[len(found) // 2], found[-1])


def launch_s(tree: Tree, timing: Timing, *, warm: int = 0, seed: int = 0, microvms: bool = False) -> float:
    """Simulate a launch of functions, or of MicroVMs; return the seconds from rank 0's start to the last rank's."""
    draws = Draws(timing, seed)
    rates = "microvms" if microvms else "environments"
    environments = TokenBucket(timing[f"{rates}.per_s"], timing[f"{rates}.burst"])
    work_s = (timing["cpu.begin_s"] + timing["cpu.open_s"]) / timing["core.factor"]
    last = 0.0
    begun = [(0.0, 0)]
    while begun:  # by start time, because cold starts take tokens of the rate limit in that order
        start, rank = heapq.heappop(begun)
        last = max(last, start)
        ready = start + work_s + draws.latency("put")  # after it has written its claim
        starters = [ready] * STARTERS
        for child in tree.children(rank):
            asked = starters[0] + timing["cpu.start_s"] + draws.latency("start")
            heapq.heapreplace(starters, asked)
            if microvms:
                began = asked + environments.wait_s(asked) + draws.latency("launch")
            elif warm > 0:
                warm -= 1
                began = asked + draws.latency("begin")
            else:
                began = asked + environments.wait_s(asked) + draws.latency("begin") + draws.latency("cold")
            heapq.heappush(begun, (began, child))
    return last
