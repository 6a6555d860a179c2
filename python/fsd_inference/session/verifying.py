"""A fixed set of small runs on a stack's functions, compared with a local run and with their predictions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fsd_inference.cost.model import run_cost
from fsd_inference.errors import FsdError, SettingError
from fsd_inference.network import digits, graph_challenge
from fsd_inference.report.pricing import price
from fsd_inference.report.verification import StackNames, Verification, VerifiedRun, compare, usd_of
from fsd_inference.session.pushing import push
from fsd_inference.session.session import Session
from fsd_inference.stack_description import function_name

if TYPE_CHECKING:
    from scipy import sparse

    from fsd_inference.cost.prices import PriceTable
    from fsd_inference.prediction import Prediction
    from fsd_inference.progress import Progress
    from fsd_inference.session.inference import Inference
    from fsd_inference.stack_description import StackSpec

CASES = (("serial", 1), ("queue", 2), ("queue", 4), ("object", 2))
"""Channel and workers of each run."""
_NEURONS, _LAYERS, _SAMPLES = 1024, 12, 200


def names_of(stack: StackSpec) -> StackNames:
    """Return the names of a stack's functions, topics and queues; raise SettingError if it has no functions."""
    functions = stack.functions
    if functions is None:
        raise SettingError(f"stack {stack.name} has no functions to verify: give one that Terraform deployed")
    arns = (functions.coordinator, *(worker.arn for worker in functions.workers))
    urls = (*(url for lane in stack.lanes for url in lane.queue_urls), functions.failures_queue_url)
    return StackNames(
        stack.name,
        stack.region,
        tuple(map(function_name, arns)),
        tuple(arn.rpartition(":")[2] for lane in stack.lanes for arn in lane.topic_arns),
        tuple(url.rpartition("/")[2] for url in urls),
    )


def verify(
    record: Verification,
    path: Path,
    stack: StackSpec,
    prices: PriceTable,
    *,
    confirm: Callable[[Sequence[VerifiedRun]], bool],
    progress: Progress,
) -> None:
    """Push the network, predict the runs, and carry them out within the cost limit.

    Runs stop at the first failure, whose cost is not known in full. What was done is in the record in any case.

    Parameters
    ----------
    record : Verification
        Receives the runs; its cost limit is kept.
    path, stack : Path, StackSpec
        The ``stack.json``, and its content.
    prices : PriceTable
    confirm : callable
        Is given the runs with their predicted costs, and returns whether to carry them out.
    progress : Progress

    Raises
    ------
    FsdError
        The network could not be pushed or the runs not be predicted; nothing was run.
    """
    network, x = graph_challenge(_NEURONS, _LAYERS), digits(_NEURONS, _SAMPLES)
    with Session(network, progress=progress) as local:
        expected = local.infer(x)
    with ExitStack() as sessions:
        planned: list[tuple[VerifiedRun, Session, Prediction]] = []
        for channel, workers in CASES:
            run = VerifiedRun(channel, workers)
            record.runs.append(run)
            if channel == "queue" and workers > stack.ranks:
                run.state, run.note = "skipped", f"the stack has queues for {stack.ranks} workers only"
                continue
            push(network, stack=path, workers=workers, progress=progress)
            session = sessions.enter_context(
                Session(network, channel=channel, workers=workers, stack=path, progress=progress)
            )
            predicted = session.predict(x)
            if predicted is None:  # only of sessions that were given shards
                raise AssertionError(run.name)
            run.predicted_usd = _cost(predicted, prices)
            planned.append((run, session, predicted))
        if not confirm([run for run, _, _ in planned]):
            record.skip_rest("the runs were not confirmed")
            return
        for run, session, predicted in planned:
            if record.keep_limit(run):
                _carry_out(record, run, session, predicted, x, expected, prices)


def _carry_out(
    record: Verification,
    run: VerifiedRun,
    session: Session,
    predicted: Prediction,
    x: sparse.csr_array,
    expected: Inference,
    prices: PriceTable,
) -> None:
    run.state = "failed"  # unless the run ends well: an interrupted one costs something too
    run.note = "it was interrupted"
    try:
        answer = session.infer(x, predicted=predicted)
    except FsdError as error:
        run.note = str(error)
        if session.report is not None:
            run.counted_usd = usd_of(price(session.report, prices=prices).metered)
        record.skip_rest("an earlier run failed")
        return
    finally:
        record.ended = time.time()
    run.state, run.note = "done", None
    run.identical = _identical(expected, answer)
    priced = price(answer.report, prices=prices)
    run.counted_usd = usd_of(priced.metered)
    run.comparisons = compare(answer.report, predicted, priced)
    record.add_totals(answer.report)


def _cost(predicted: Prediction, prices: PriceTable) -> float:

    return run_cost(predicted.usage, predicted.functions, prices, samples=_SAMPLES).usd


def _identical(expected: Inference, answer: Inference) -> bool:
    """Return whether the outputs of two sparse batches are equal bit for bit."""
    a, b = expected.outputs, answer.outputs
    if a is None or b is None or isinstance(a, np.ndarray) or isinstance(b, np.ndarray) or a.shape != b.shape:
        return False
    same = np.array_equal(a.indptr, b.indptr) and np.array_equal(a.indices, b.indices)
    return bool(same) and a.data.tobytes() == b.data.tobytes()
