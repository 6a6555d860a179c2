"""Advice on how to run a network: partitions it for several numbers of workers, then predicts and ranks all options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from numpy.typing import ArrayLike
from scipy import sparse

from fsd_inference.cost.model import Billing
from fsd_inference.cost.prices import PriceTable, load_prices
from fsd_inference.forecast.cut import Cut
from fsd_inference.forecast.cutting import CUTTING_S, cut_network
from fsd_inference.forecast.options import Advice, Question
from fsd_inference.forecast.planner import plan_options
from fsd_inference.forecast.timing import Timing, load_timing
from fsd_inference.network import Network, as_inputs
from fsd_inference.progress import Progress, Silent, task


def advise(
    network: Network,
    question: Question,
    *,
    timing: Timing | None = None,
    prices: PriceTable | None = None,
    x: ArrayLike | sparse.sparray | sparse.spmatrix | None = None,
    billing: Billing | None = None,
    cuts: Mapping[int, Cut] | None = None,
    cache: Path | None = None,
    cutting_s: float = CUTTING_S,
    progress: Progress | None = None,
) -> Advice:
    """Predict time, cost and memory of every way to run a network, and rank them.

    Parameters
    ----------
    network : Network
    question : Question
        The batch size, and the limits of time, cost and resources.
    timing : Timing, optional
        Latencies and rates of the services; default: those of AWS.
    prices : PriceTable, optional
        Default: the package's prices of us-east-1.
    x : array or sparse matrix, samples x features, optional
        A sample of the inputs; default: random inputs, in which a fifth of the features are 1 and the others 0.
    billing : Billing, optional
        How to read the billing rules that AWS leaves unclear.
    cuts : mapping of int to Cut, optional
        The partitioned network by number of workers, as `cut_network` returns it; pass it to reuse the cuts for
        several questions.
    cache : Path, optional
        Folder that caches exchange plans; default: the user's cache folder.
    cutting_s : float
        Time limit for partitioning in seconds. Numbers of workers that it does not reach get an estimated exchange,
        and their options are marked so.
    progress : Progress, optional
        Receives progress updates.

    Returns
    -------
    Advice
        The options, the best one first.

    Raises
    ------
    InputError
        The inputs do not fit the network.
    SettingError
        The price table lacks a price that is needed.

    Examples
    --------
    >>> import fsd_inference as fsd
    >>> network = fsd.random_network([64, 48, 32], connections=8)
    >>> advice = fsd.advise(network, fsd.Question(samples=1000))
    >>> advice.best.variant
    'serial'
    """
    progress = progress or Silent()
    if cuts is None:
        if x is not None:
            x = as_inputs(x, network.widths[0])
        cuts = cut_network(network, question, x=x, cache=cache, cutting_s=cutting_s, progress=progress)
    with task(progress, "plan"):
        return plan_options(cuts, question, timing or load_timing(), prices or load_prices(), billing=billing)
