"""Advice on how to run a network: its cuts, and every option predicted, priced and ranked."""

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
        The batch, and the limits within which it is to be answered.
    timing : Timing, optional
        Latencies and rates of the services; those of AWS if not given.
    prices : PriceTable, optional
        Those of us-east-1 if not given.
    x : array or sparse matrix, samples x features, optional
        A sample of the inputs. Drawn at random if not given, a fifth of the features being 1.
    billing : Billing, optional
        How AWS is taken to bill where it does not say; the dearer reading if not given.
    cuts : mapping of int to Cut, optional
        The network by numbers of workers, as `cut_network` returns it: for those who ask several questions.
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
    progress = progress or Silent()
    if cuts is None:
        if x is not None:
            x = as_inputs(x, network.widths[0])
        cuts = cut_network(network, question, x=x, cache=cache, cutting_s=cutting_s, progress=progress)
    with task(progress, "plan"):
        return plan_options(cuts, question, timing or load_timing(), prices or load_prices(), billing=billing)
