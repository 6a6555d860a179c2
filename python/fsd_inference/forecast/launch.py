"""The launch study: how long until the last rank has started, by a tree and by one launcher that starts all."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fsd_inference.engine.tree import Tree
from fsd_inference.errors import SettingError
from fsd_inference.forecast.draws import Draws
from fsd_inference.forecast.timing import Timing
from fsd_inference.forecast.token_bucket import TokenBucket
from fsd_inference.limits import DEEPEST_TREE, STARTERS


@dataclass(frozen=True, slots=True)
class Launch:
    """How long it takes to start P ranks.

    Attributes
    ----------
    workers : int
        P.
    branching : int
        Ranks that a rank starts; P - 1 for one launcher that starts all.
    depth : int
        Of the tree, rank 0 counted.
    median_s, slowest_s : float
        From the start of rank 0 to that of the last rank: over the runs.
    """

    workers: int
    branching: int
    depth: int
    median_s: float
    slowest_s: float

    @property
    def is_allowed(self) -> bool:
        """Whether AWS lets chains of invocations go so deep."""
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
    """Yield, for each P, the trees of the given branchings, then one launcher that starts all.

    Parameters
    ----------
    timing : Timing
    workers, branchings : iterable of int
    runs : int
        Draws of all latencies.
    warm : int
        Function environments that are there already.
    seed : int
    """
    branchings = tuple(branchings)
    if runs < 1:
        raise SettingError(f"runs must be at least 1, not {runs}")
    for count in workers:
        for branching in dict.fromkeys((*(b for b in branchings if b < count - 1), max(1, count - 1))):
            if count < 1 or branching < 1:
                raise SettingError(f"there is no launch of {count} workers with a branching of {branching}")
            tree = Tree(count, branching)
            found = sorted(launch_s(tree, timing, warm=warm, seed=seed + run) for run in range(runs))
            yield Launch(count, branching, tree.depth, found[len(found) // 2], found[-1])


def launch_s(tree: Tree, timing: Timing, *, warm: int = 0, seed: int = 0) -> float:
    """Return the seconds from the start of rank 0 to that of the last rank: what a simulated run does first."""
    draws = Draws(timing, seed)
    environments = TokenBucket(timing["environments.per_s"], timing["environments.burst"])
    work_s = (timing["cpu.begin_s"] + timing["cpu.open_s"]) / timing["core.factor"]
    last = 0.0
    begun = [(0.0, 0)]
    while begun:  # in the order of their starts, so that environments are made in turn
        start, rank = heapq.heappop(begun)
        last = max(last, start)
        ready = start + work_s + draws.latency("put")  # its claim
        starters = [ready] * STARTERS
        for child in tree.children(rank):
            asked = starters[0] + timing["cpu.start_s"] + draws.latency("start")
            heapq.heapreplace(starters, asked)
            if warm > 0:
                warm -= 1
                began = asked + draws.latency("begin")
            else:
                began = asked + environments.wait_s(asked) + draws.latency("begin") + draws.latency("cold")
            heapq.heappush(begun, (began, child))
    return last
