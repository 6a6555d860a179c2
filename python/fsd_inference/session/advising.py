"""From a network and a sample of its inputs to advice: cut it, or estimate cuts, sample what is exchanged, and plan."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from fsd_inference.cost.cut import Cut
from fsd_inference.cost.frames import Payloads
from fsd_inference.cost.model import Billing
from fsd_inference.cost.options import Advice, Question
from fsd_inference.cost.planner import advise as plan_options
from fsd_inference.cost.prices import PriceTable, load_prices
from fsd_inference.cost.timing import Timing, load_timing
from fsd_inference.cost.work import Work
from fsd_inference.network import Network, as_inputs
from fsd_inference.partitioning.plan import ExchangePlan
from fsd_inference.session.estimating import (
    STRETCH,
    Exchanged,
    estimated_plan,
    estimated_work,
    interpolated,
    stretch,
)
from fsd_inference.session.plan_cache import PlanCache, default_folder
from fsd_inference.session.progress import Progress, Silent, task
from fsd_inference.session.pushing import DEFAULT_METHOD
from fsd_inference.session.sampling import sample_payloads
from fsd_inference.session.simulating import Planned
from fsd_inference.session.work import whole_plan, whole_work

CUTTING_S = 10.0
"""How long networks are cut, at most; what is not cut by then is estimated."""
_SAMPLED = 5e9  # connections x samples that are pushed through: one to three seconds
_MOST_SAMPLES, _LEAST_SAMPLES = 512, 24
_EDGES = 8  # of an exchange, that are packed
_LEAST_ROWS = 8  # of a layer, that a rank owns
_QUICK, _AT_ONCE = 4e6, "block"  # connections of a layer that is cut in seconds; what cuts larger ones, not as well
_DENSITY = 0.2  # of inputs that are drawn


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A cut without the sizes of what it carries, and the plan whose edges are packed to know them."""

    plan: ExchangePlan
    work: Work
    packed: ExchangePlan
    is_estimated: bool

    def cut(self, found: Payloads) -> Cut:
        """Return the cut with the sizes that were found of the packed plan."""
        if self.packed is not self.plan:  # one edge stands for all
            exchanges = tuple(
                np.repeat(sizes, len(edges), axis=0)
                for sizes, edges in zip(found.exchanges, self.plan.exchanges, strict=True)
            )
            found = replace(found, exchanges=exchanges)
        return Cut(self.plan, self.work, found, self.is_estimated)


def advise(
    network: Network,
    question: Question,
    *,
    timing: Timing | None = None,
    prices: PriceTable | None = None,
    x: ArrayLike | sparse.sparray | sparse.spmatrix | None = None,
    billing: Billing | None = None,
    cache: Path | None = None,
    cutting_s: float = CUTTING_S,
    progress: Progress | None = None,
) -> Advice:
    """Predict time, cost and memory of every way to run a network, and rank them.

    Parameters
    ----------
    network : Network
    question : Question
        The batch, and the limits within which it is to be answered.
    timing : Timing, optional
        Latencies and rates of the services; those of AWS if not given.
    prices : PriceTable, optional
        Those of us-east-1 if not given.
    x : array or sparse matrix, samples x features, optional
        A sample of the inputs. Drawn at random if not given, a fifth of the features being 1.
    billing : Billing, optional
        How AWS is taken to bill where it does not say; the dearer reading if not given.
    cache : Path, optional
        Folder of plans that were cut before; the user's if not given.
    cutting_s : float
        How long networks are cut, at most. Where that is not enough the exchange is estimated, and marked so.
    progress : Progress, optional
        Is told how far the advice is.

    Returns
    -------
    Advice
        The options, the best one first.

    Raises
    ------
    InputError
        The inputs are not those of the network.
    SettingError
        There is no price of something.

    Examples
    --------
    >>> import fsd_inference as fsd
    >>> network = fsd.random_network([64, 48, 32], connections=8)
    >>> advice = fsd.advise(network, fsd.Question(samples=1000))
    >>> advice.best.variant
    'serial'
    """
    if x is not None:
        x = as_inputs(x, network.widths[0])
    progress = progress or Silent()
    cuts = make_cuts(
        network, question, x=x, kept=kept_plans(network, cache),
        cutting_s=cutting_s, progress=progress,
    )  # fmt: skip
    with task(progress, "plan"):
        return plan_options(cuts, question, timing or load_timing(), prices or load_prices(), billing=billing)


def kept_plans(network: Network, cache: Path | None = None) -> PlanCache:
    """Return what was cut before of a network, in a folder or in the user's."""
    return PlanCache(cache or default_folder(), network.digest, DEFAULT_METHOD)


def make_cuts(
    network: Network,
    question: Question,
    *,
    x: sparse.csr_array | None,
    kept: PlanCache,
    cutting_s: float = CUTTING_S,
    progress: Progress | None = None,
) -> dict[int, Cut]:
    """Return the network by numbers of workers, 1 and the powers of two that the question allows; see `advise`."""
    progress = progress or Silent()
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
    """Return inputs of which a fifth are 1."""
    rng = np.random.default_rng(seed)
    return sparse.csr_array((rng.random((samples, features), np.float32) < _DENSITY).astype(np.float32))


def _whole(network: Network, kept: PlanCache) -> tuple[ExchangePlan, Work]:
    """Return the network as one function runs it."""
    found = kept.get(1)
    if found is None:
        found = whole_plan(network), whole_work(network)
        kept.put(1, *found)
    return found


def _cuts(network: Network, workers: Sequence[int], kept: PlanCache, whole: Work, cutting_s: float) -> list[_Drawn]:
    """Return cuts for each of `workers`: kept ones, those that can be made in time, and estimates."""
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
        # Of a network that nothing is known of, some layers are cut instead.
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


def _timed(network: Network, workers: int, method: str) -> tuple[Planned, float]:
    """Return a cut, and the seconds that it took for a layer."""
    began = time.monotonic()
    cut = Planned.cut(network, workers, method)
    return cut, (time.monotonic() - began) / len(network)
