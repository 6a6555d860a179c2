"""The cost of a run, both predicted and from its metered usage."""

from __future__ import annotations

from dataclasses import dataclass

from fsd_inference.cost.metered import function_times
from fsd_inference.cost.model import Cost, run_cost
from fsd_inference.cost.prices import PriceTable, load_prices
from fsd_inference.errors import InputError
from fsd_inference.limits import LARGEST_FUNCTION_MB, MB_PER_VCPU
from fsd_inference.run_report import RunReport


@dataclass(frozen=True, slots=True)
class Priced:
    """The costs of a run.

    Attributes
    ----------
    metered : Cost or None
        Cost of the usage that the run metered; None if it is unknown.
    predicted : Cost or None
        Cost of the usage predicted before the run; None if there was no prediction.
    notes : tuple of str
        Assumptions made, and reasons why a cost is missing.
    """

    metered: Cost | None
    predicted: Cost | None
    notes: tuple[str, ...]


def price(report: RunReport, *, prices: PriceTable | None = None, memory_mb: int | None = None) -> Priced:
    """Compute the costs of a run and of its prediction.

    Parameters
    ----------
    report : RunReport
        The run.
    prices : PriceTable, optional
        Prices to use; by default the package's prices of us-east-1.
    memory_mb : int, optional
        Memory of each worker's function in MB; by default that of the report, or `MB_PER_VCPU` if it has none.
    """
    table = prices or load_prices()
    memory = memory_mb or report.memory_mb or MB_PER_VCPU
    notes = (
        [] if report.memory_mb else [f"Lambda time is that of local processes, priced as functions of {memory:,} MB."]
    )
    if memory > LARGEST_FUNCTION_MB:
        notes.append(
            f"Workers of {memory:,} MB run on Lambda Managed Instances, which are paid by the month, used or not: "
            "only their invocations are counted."
        )
    if report.channel == "local":
        notes.append("Frames went over local sockets, for which AWS has no price.")
    metered = predicted = None
    try:
        functions = function_times(report, memory_mb=memory)
        metered = run_cost(report.usage, functions, table, samples=report.samples)
    except InputError as error:
        notes.append(f"The cost is unknown: {error}.")
    prediction = report.predicted
    if prediction is None:
        return Priced(metered, None, (*notes, "No prediction was made before this run."))
    try:
        predicted = run_cost(prediction.usage, prediction.functions, table, samples=report.samples)
    except InputError as error:
        notes.append(f"The predicted cost is unknown: {error}.")
    if not prediction.functions:
        notes.append("The time of functions was not predicted.")
    return Priced(metered, predicted, tuple(notes))
