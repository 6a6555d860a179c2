"""The record of a verification on AWS: runs whose answers, requests and costs are compared with a prediction."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from fsd_inference.cost.metered import function_times
from fsd_inference.cost.model import Cost
from fsd_inference.errors import FileFormatError
from fsd_inference.fields import Fields
from fsd_inference.prediction import Prediction
from fsd_inference.report.pricing import Priced
from fsd_inference.run_report import RunReport
from fsd_inference.usage import EACH_MESSAGE

_FORMAT, _VERSION = "fsd-verification", 1

State = Literal["planned", "done", "failed", "skipped"]
_STATES: dict[str, State] = {state: state for state in get_args(State)}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A predicted figure beside the counted one; None where it is unknown."""

    what: str
    predicted: float | None
    counted: float | None

    @property
    def ratio(self) -> float | None:
        """Counted over predicted; None if one of them is unknown, or the predicted figure is 0."""
        return self.counted / self.predicted if self.predicted and self.counted is not None else None


@dataclass(slots=True)
class VerifiedRun:
    """A run of a verification.

    Attributes
    ----------
    channel : str
    workers : int
    predicted_usd : float
        Predicted cost in USD.
    state : {"planned", "done", "failed", "skipped"}
    note : str or None
        Why it failed or was skipped.
    identical : bool or None
        Whether the answer equals that of a local process bit for bit; None without an answer.
    counted_usd : float or None
        Cost of the counted usage in USD; None if it is unknown.
    comparisons : list of Comparison
    """

    channel: str
    workers: int
    predicted_usd: float = 0.0
    state: State = "planned"
    note: str | None = None
    identical: bool | None = None
    counted_usd: float | None = None
    comparisons: list[Comparison] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Channel and number of workers: ``queue P=2``."""
        return f"{self.channel} P={self.workers}"

    @property
    def spent_usd(self) -> float:
        """What the run counts towards the limit; if it failed, at least its prediction: dead ranks do not report."""
        if self.state == "failed":
            return max(self.predicted_usd, self.counted_usd or 0.0)
        if self.state == "done":
            return self.predicted_usd if self.counted_usd is None else self.counted_usd
        return 0.0


@dataclass(frozen=True, slots=True)
class StackNames:
    """Names of a stack's resources, by which CloudWatch's metrics are found after it is gone."""

    name: str
    region: str
    functions: tuple[str, ...]
    topics: tuple[str, ...]
    queues: tuple[str, ...]


@dataclass(slots=True)
class Verification:
    """A verification: the stack, the cost limit, the runs, and how it ended.

    Attributes
    ----------
    stack : StackNames or None
        None if no stack was made.
    limit_usd : float
        Cost limit in USD.
    began, ended : float
        When it began and when its last run ended, seconds since the epoch.
    runs : list of VerifiedRun
    totals : dict of str to float
        Sums over the runs that CloudWatch counts as well: see `add_totals`.
    problem : str or None
        Why the verification ended early; None if it did not.
    left : str or None
        What is left of a stack that could not be taken down, and how to delete it; None if nothing.
    bill : list of Comparison
        What was counted by the runs (as predicted) beside what CloudWatch counted, once that was asked for.
    """

    stack: StackNames | None
    limit_usd: float
    began: float
    ended: float
    runs: list[VerifiedRun] = field(default_factory=list)
    totals: dict[str, float] = field(default_factory=dict)
    problem: str | None = None
    left: str | None = None
    bill: list[Comparison] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether all runs gave the right answer, and nothing is left behind."""
        right = all(run.state == "done" and run.identical for run in self.runs)
        return bool(self.runs) and right and not self.problem and not self.left

    @property
    def spent_usd(self) -> float:
        """Cost of the runs so far in USD."""
        return sum(run.spent_usd for run in self.runs)

    def keep_limit(self, run: VerifiedRun) -> bool:
        """Return whether a run may start; otherwise mark it as skipped, since its prediction exceeds the limit."""
        whole = self.spent_usd + run.predicted_usd
        if whole > self.limit_usd:
            run.state = "skipped"
            run.note = f"its prediction would bring the cost to USD {whole:.4f}, above the limit of {self.limit_usd:g}"
        return run.state == "planned"

    def skip_rest(self, why: str) -> None:
        """Mark the runs that have not begun as skipped."""
        for run in self.runs:
            if run.state == "planned":
                run.state, run.note = "skipped", why

    def add_totals(self, report: RunReport) -> None:
        """Add a run's invocations, their seconds without init phases, SNS units and empty receives to the totals."""
        functions = function_times(report)
        init_s = report.coordinator_init_s + sum(rank.init_s for rank in report.ranks)
        for name, value in {
            "invocations": sum(each.invocations for each in functions),
            "function_s": max(0.0, sum(each.seconds for each in functions) - init_s),
            "sns_units": report.usage.billed_units[f"sns.publish{EACH_MESSAGE}"],
            "empty_receives": report.usage.empty_polls,
        }.items():
            self.totals[name] = self.totals.get(name, 0.0) + value

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON values."""
        return {"format": _FORMAT, "version": _VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, value: object) -> Verification:
        """Rebuild the record from `to_json`; raise FileFormatError naming the field that is missing or wrong."""
        fields = Fields(value, "", "a verification")
        if (fields.take("format", str), fields.take("version", int)) != (_FORMAT, _VERSION):
            raise FileFormatError(f"'format' must be {_FORMAT!r} of version {_VERSION}")
        stack = fields.take_optional("stack", dict)
        totals = fields.take("totals", dict)
        sums = Fields(totals, "totals.")
        return cls(
            None if stack is None else _names(Fields(stack, "stack.")),
            fields.take_number("limit_usd", "USD"),
            fields.take_number("began"),
            fields.take_time("ended"),
            [_run(each) for each in fields.take_each("runs")],
            {name: sums.take_number(name, "units") for name in totals},
            fields.take_optional("problem", str),
            fields.take_optional("left", str),
            [_comparison(each) for each in fields.take_each("bill")],
        )


def compare(report: RunReport, prediction: Prediction, priced: Priced) -> list[Comparison]:
    """Return requests by kind, bytes, times and cost of a run, each predicted and counted."""
    kinds = sorted(report.usage.requests.keys() | prediction.usage.requests.keys())
    counted, predicted = report.usage, prediction.usage
    return [
        *(Comparison(kind, predicted.requests[kind], counted.requests[kind]) for kind in kinds),
        Comparison("bytes sent", predicted.body_bytes, counted.body_bytes),
        Comparison("wall time, s", prediction.wall_s, report.wall_s),
        Comparison(
            "function time, s",
            sum(each.seconds for each in prediction.functions),
            sum(each.seconds for each in function_times(report)),
        ),
        Comparison("cost, USD", usd_of(priced.predicted), usd_of(priced.metered)),
    ]


def usd_of(cost: Cost | None) -> float | None:
    """Return the total of a cost in USD; None if it is unknown."""
    return None if cost is None else cost.usd


def _names(fields: Fields) -> StackNames:
    names = (fields.take_strings(name) for name in ("functions", "topics", "queues"))
    return StackNames(fields.take("name", str), fields.take("region", str), *names)


def _run(fields: Fields) -> VerifiedRun:
    state = fields.take("state", str)
    if state not in _STATES:
        raise FileFormatError(f"'runs.state' must be one of {', '.join(_STATES)}, not {state!r}")
    return VerifiedRun(
        fields.take("channel", str),
        fields.take("workers", int),
        fields.take_number("predicted_usd", "USD"),
        _STATES[state],
        fields.take_optional("note", str),
        fields.take_optional("identical", bool),
        fields.take_number_optional("counted_usd"),
        [_comparison(each) for each in fields.take_each("comparisons")],
    )


def _comparison(fields: Fields) -> Comparison:
    numbers = (fields.take_number_optional(name) for name in ("predicted", "counted"))
    return Comparison(fields.take("what", str), *numbers)
