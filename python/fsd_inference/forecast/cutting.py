"""Partitions of a network for several numbers of workers, computed within a time limit or else estimated."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import sparse

from fsd_inference.forecast.cut import Cut
from fsd_inference.forecast.estimating import (
    STRETCH,
    Exchanged,
    estimated_plan,
    estimated_work,
    interpolated,
    stretch,
)
from fsd_inference.forecast.options import Question
from fsd_inference.forecast.partitioned import Partitioned
from fsd_inference.forecast.payloads import Payloads
from fsd_inference.forecast.plan_cache import PlanCache, default_folder
from fsd_inference.forecast.sampling import sample_payloads
from fsd_inference.forecast.work import Work, whole_plan, whole_work
from fsd_inference.network import Network
from fsd_inference.partitioning.methods import DEFAULT_METHOD
from fsd_inference.partitioning.plan import ExchangePlan
from fsd_inference.progress import Progress, Silent, task

CUTTING_S = 10.0
"""Time limit for partitioning in seconds; numbers of workers that it does not reach are estimated."""
_SAMPLED = 5e9  # connections x samples of the sampling forward pass, which takes one to three seconds
_MOST_SAMPLES, _LEAST_SAMPLES = 512, 24
_EDGES = 8  # edges of each exchange whose rows are packed to learn their size
_LEAST_ROWS = 8  # rows of each layer that a rank must own
_QUICK = 4e6  # connections of the largest layer that the default method partitions within seconds
_AT_ONCE = "block"  # the method for larger layers: immediate, but with worse partitions
_DENSITY = 0.2  # fraction of ones in random inputs


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A cut whose payload sizes are not known yet, and the plan whose edges are packed to learn them."""

    plan: ExchangePlan
    work: Work
    packed: ExchangePlan
    is_estimated: bool

    def cut(self, found: Payloads) -> Cut:
        """Return the cut with the sizes that were sampled for the packed plan."""
        if self.packed is not self.plan:  # one edge of each exchange represents all
            exchanges = tuple(
                np.repeat(sizes, len(edges), axis=0)
                for sizes, edges in zip(found.exchanges, self.plan.exchanges, strict=True)
            )
            found = replace(found, exchanges=exchanges)
        return Cut(self.plan, self.work, found, self.is_estimated)


def cut_network(
    network: Network,
    question: Question,
    *,
    x: sparse.csr_array | None = None,
    cache: Path | None = None,
    cutting_s: float = CUTTING_S,
    progress: Progress | None = None,
) -> dict[int, Cut]:
    """Partition a network for 1 worker and for the powers of two that a question allows.

    Parameters
    ----------
    network : Network
    question : Question
        Only `samples` and `most_workers` are used.
    x, cache, cutting_s, progress
        As for `advise`.

    Returns
    -------
    dict of int to Cut
        The cuts by number of workers.
    """
    progress = progress or Silent()
    kept = PlanCache(cache or default_folder(), network.digest, DEFAULT_METHOD)
    if x is None:
        x = random_inputs(network.widths[0], min(question.samples, _MOST_SAMPLES))
    with task(progress, "partition"):
        whole = _whole(network, kept)
        drawn = [_Drawn(whole[0], whole[1], whole[0], is_estimated=False)]
        most = min(question.most_workers, min(network.widths[1:]) // _LEAST_ROWS)
        workers = [2**k for k in range(1, most.bit_length())] if len(network) > 1 else []
        drawn += _cuts(network, workers, kept, whole[1], cutting_s)
    with task(progress, "sample"):
        affordable = round(_SAMPLED / max(1, int(whole[1].connections.sum())))
        found = sample_payloads(
            network,
            [one.packed for one in drawn],
            x,
            samples=question.samples,
            most_samples=min(_MOST_SAMPLES, max(_LEAST_SAMPLES, affordable)),
            most_edges=_EDGES,
        )
    return {one.plan.workers: one.cut(sizes) for one, sizes in zip(drawn, found, strict=True)}


def random_inputs(features: int, samples: int, seed: int = 0) -> sparse.csr_array:
    """Return random inputs, samples x features, of which a fifth are 1 and the others 0."""
    rng = np.random.default_rng(seed)
    return sparse.csr_array((rng.random((samples, features), np.float32) < _DENSITY).astype(np.float32))


def _whole(network: Network, kept: PlanCache) -> tuple[ExchangePlan, Work]:
    """Return plan and work of the whole network on one worker."""
    found = kept.get(1)
    if found is None:
        found = whole_plan(network), whole_work(network)
        kept.put(1, *found)
    return found


def _cuts(network: Network, workers: Sequence[int], kept: PlanCache, whole: Work, cutting_s: float) -> list[_Drawn]:
    """Return a cut for each of `workers`: from the cache, partitioned while time is left, or else estimated."""
    made = {count: found for count in workers if (found := kept.get(count)) is not None}
    known = [Exchanged.of(plan, work.inputs) for plan, work in made.values()]
    left = [count for count in workers if count not in made]
    if left:
        until = time.monotonic() + cutting_s
        some = stretch(network)
        method = DEFAULT_METHOD if whole.connections.max() <= _QUICK else _AT_ONCE
        tried, a_layer = _timed(some, left[0], method)
        for count in left:
            if method == _AT_ONCE or time.monotonic() + a_layer * len(network) > until:
                break
            cut, a_layer = _timed(network, count, method)
            kept.put(count, cut.plan, cut.work)
            made[count] = cut.plan, cut.work
            known.append(Exchanged.of(cut.plan, cut.work.inputs))
        # If no cut of the whole network is known, estimate from cuts of a few layers.
        if not known:
            known = [Exchanged.of(tried.plan, tried.work.inputs)]
            for count in left[2::2]:
                if time.monotonic() + STRETCH * a_layer < until:
                    known.append(Exchanged.of(_timed(some, count, method)[0].plan, tried.work.inputs))
    connections = float(whole.connections.sum()) / sum(whole.inputs)
    drawn = []
    for count in workers:
        if count in made:
            drawn.append(_Drawn(*made[count], made[count][0], is_estimated=False))
        else:
            plan = estimated_plan(interpolated(known, count, connections), whole.inputs)
            one = ExchangePlan(count, tuple(exchange[:1] for exchange in plan.exchanges))
            drawn.append(_Drawn(plan, estimated_work(whole, count), one, is_estimated=True))
    return drawn


def _timed(network: Network, workers: int, method: str) -> tuple[Partitioned, float]:
    """Partition a network; return the result and the seconds that it took per layer."""
    began = time.monotonic()
    cut = Partitioned.cut(network, workers, method)
    return cut, (time.monotonic() - began) / len(network)
