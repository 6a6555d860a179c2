"""What a run was foreseen to cost, and what it cost by its own counts."""

from __future__ import annotations

from dataclasses import dataclass

from fsd_inference.cost.metered import function_times
from fsd_inference.cost.model import Cost, run_cost
from fsd_inference.cost.prices import PriceTable, load_prices
from fsd_inference.errors import InputError
from fsd_inference.limits import MB_PER_VCPU
from fsd_inference.run_report import RunReport


@dataclass(frozen=True, slots=True)
class Priced:
    """A run's costs.

    Attributes
    ----------
    metered : Cost or None
        By what the run counted; None if it cannot be told.
    predicted : Cost or None
        By what was foreseen, if someone did.
    notes : tuple of str
        What was assumed, and what is missing.
    """

    metered: Cost | None
    predicted: Cost | None
    notes: tuple[str, ...]


def price(report: RunReport, *, prices: PriceTable | None = None, memory_mb: int | None = None) -> Priced:
    """Price a run, and what was foreseen of it.

    Parameters
    ----------
    report : RunReport
    prices : PriceTable, optional
        The package's, of us-east-1, if not given.
    memory_mb : int, optional
        Of each worker's function; what the report says, or `MB_PER_VCPU`, if not given.
    """
    table = prices or load_prices()
    memory = memory_mb or report.memory_mb or MB_PER_VCPU
    notes = [] if report.memory_mb else [f"Lambda's time is that of the processes here, as functions of {memory:,} MB."]
    if report.channel == "local":
        notes.append("Frames went over local sockets, for which AWS has no price.")
    metered = predicted = None
    try:
        functions = function_times(report, memory_mb=memory)
        metered = run_cost(report.usage, functions, table, samples=report.samples)
    except InputError as error:
        notes.append(f"The cost cannot be told: {error}.")
    foreseen = report.predicted
    if foreseen is None:
        return Priced(metered, None, (*notes, "No prediction was made before this run."))
    try:
        predicted = run_cost(foreseen.usage, foreseen.functions, table, samples=report.samples)
    except InputError as error:
        notes.append(f"The predicted cost cannot be told: {error}.")
    if not foreseen.functions:
        notes.append("The time of functions was not predicted.")
    return Priced(metered, predicted, tuple(notes))
