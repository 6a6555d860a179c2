"""What a planner is asked, and what it answers: plain records."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from fsd_inference.errors import SettingError
from fsd_inference.limits import ACCOUNT_CONCURRENCY, LARGEST_FUNCTION_MB
from fsd_inference.prediction import ARCHITECTURES
from fsd_inference.units import seconds_text, usd_text

MOST_SAMPLES = 1_000_000_000
"""A billion a query: times and bytes of more are beyond what was measured by far."""
VARIANTS = (
    "serial", "queue", "object", "express", "job server", "always-on server", "job cluster", "always-on cluster",
)  # fmt: skip
"""`express` is `object` over S3 Express One Zone. Clusters are servers that talk by MPI; both are modelled, not run."""
LIMITS = ("memory", "invocation", "deadline", "budget", "rate")
"""Memory of a function or server; time of an invocation; those of the question; and queries a day."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be run, and within which limits.

    Attributes
    ----------
    samples : int
        Of a query's batch.
    deadline_s : float or None
        A query is answered by then.
    budget_usd : float or None
        A query costs no more.
    queries_a_day : float or None
        How often: says whether functions are still warm, and what an always-on server costs a query.
    largest_mb : int
        The largest function that the account has: new accounts have 3,008 MB at first.
    architecture : {"x86_64", "arm64"}
    most_workers : int
        Functions of a run, at most.

    Examples
    --------
    >>> import fsd_inference as fsd
    >>> fsd.Question(samples=10_000, deadline_s=30.0).rule
    'the cheapest within 30 s'
    """

    samples: int
    deadline_s: float | None = None
    budget_usd: float | None = None
    queries_a_day: float | None = None
    largest_mb: int = LARGEST_FUNCTION_MB
    architecture: str = "x86_64"
    most_workers: int = 64

    def __post_init__(self) -> None:
        for name, least, most in (
            ("samples", 1, MOST_SAMPLES),
            ("most_workers", 1, ACCOUNT_CONCURRENCY),
            ("largest_mb", 128, LARGEST_FUNCTION_MB),
        ):
            if not least <= getattr(self, name) <= most:
                raise SettingError(f"{name} must be {least:,} to {most:,}, not {getattr(self, name):,}")
        for name, what in (
            ("deadline_s", "a deadline must be more than 0 seconds"),
            ("budget_usd", "a budget must be more than 0 dollars a query"),
            ("queries_a_day", "there must be more than 0 queries a day"),
        ):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise SettingError(f"{what}, not {value:g}")
        if self.architecture not in ARCHITECTURES:
            raise SettingError(f"architecture must be {' or '.join(ARCHITECTURES)}, not {self.architecture!r}")

    @property
    def rule(self) -> str:
        """By what options are ranked."""
        if self.deadline_s is None and self.budget_usd is not None:
            return f"the fastest for at most USD {usd_text(self.budget_usd)} a query"
        limits = [f"within {self.deadline_s:g} s"] if self.deadline_s is not None else []
        limits += [f"for at most USD {usd_text(self.budget_usd)}"] if self.budget_usd is not None else []
        return " ".join(["the cheapest", *limits])

    def prefers(self, option: Option) -> tuple[bool, float, float]:
        """Return what options are sorted by: those that can be had first."""
        by_time = self.deadline_s is None and self.budget_usd is not None
        usd = math.inf if option.usd is None else option.usd
        return (option.problem is not None, *((option.wall_s, usd) if by_time else (usd, option.wall_s)))


@dataclass(frozen=True, slots=True)
class Option:
    """A way to answer a query.

    Attributes
    ----------
    variant : str
        One of `VARIANTS`.
    workers : int
        P of a run, or servers of a cluster.
    replicas : int
        Runs side by side, each of a slice of the batch.
    memory_mb : int or None
        Of each worker's function.
    branching, micro_batches : int
        See `RunSettings`.
    instance : str or None
        Of a server, or of each server of a cluster.
    wall_s : float
        From the query to its answer.
    usd : float or None
        Of a query; None for an always-on server where the number of queries is not known.
    usd_a_day : float or None
        Of an always-on server.
    need_mb : float
        What its largest rank, or server, holds.
    services : dict of str to float
        Dollars of a query by service.
    reason : str
        What its time and its cost are spent on.
    problem : str or None
        Why it cannot be had.
    limit : str or None
        Which limit that is: one of `LIMITS`.
    is_estimated : bool
        Whether the exchange was estimated instead of cutting the network.
    is_pareto : bool
        Whether no other one is both faster and cheaper.
    """

    variant: str
    wall_s: float
    usd: float | None
    need_mb: float
    reason: str
    workers: int = 1
    replicas: int = 1
    memory_mb: int | None = None
    branching: int = 4
    micro_batches: int = 1
    instance: str | None = None
    usd_a_day: float | None = None
    services: dict[str, float] | None = None
    problem: str | None = None
    limit: str | None = None
    is_estimated: bool = False
    is_pareto: bool = False

    @property
    def name(self) -> str:
        """What people call it."""
        if self.instance is not None:
            return f"{self.variant} {self.servers}"
        if self.variant == "serial":
            return "serial" if self.replicas == 1 else f"serial, {self.replicas} replicas"
        return f"{self.variant}, P={self.workers}"

    @property
    def servers(self) -> str:
        """The servers of an option that is no functions."""
        return f"{self.instance}" if self.workers == 1 else f"{self.workers} x {self.instance}"

    @property
    def is_server(self) -> bool:
        """Whether it is a server, or a cluster of them, instead of functions."""
        return self.instance is not None

    def to_json(self) -> dict[str, Any]:
        """Return the option as plain JSON values."""
        return {"name": self.name, **asdict(self)}


@dataclass(frozen=True, slots=True)
class BreakEven:
    """From how many queries a day on an always-on server is cheaper than the best functions.

    Attributes
    ----------
    queries_a_day : float
    servers : str
        Instance type, and how many there are.
    usd_a_day : float
        Of the server.
    most_queries_a_day : float
        That it can answer, one after the other.
    """

    queries_a_day: float
    servers: str
    usd_a_day: float
    most_queries_a_day: float

    def __str__(self) -> str:
        said = f"from {self.queries_a_day:,.0f} queries a day on, {self.servers} always on (USD "
        said += f"{usd_text(self.usd_a_day)} a day) costs less"
        if self.queries_a_day > self.most_queries_a_day:
            said += f", but one answers no more than {self.most_queries_a_day:,.0f}"
        return said


@dataclass(frozen=True, slots=True)
class Advice:
    """The answer: options, the best first.

    Attributes
    ----------
    question : Question
    options : tuple of Option
        The best of each variant and number of workers, ranked; those that cannot be had last.
    break_even : BreakEven or None
        None where there are no functions, or no server, that can be had.
    prices, timing : str
        What the figures rest on, with dates.
    """

    question: Question
    options: tuple[Option, ...]
    break_even: BreakEven | None
    prices: str
    timing: str

    @property
    def best(self) -> Option:
        """The first option.

        Raises
        ------
        SettingError
            None can be had: says how far the closest is from the limits.
        """
        first = self.options[0]
        if first.problem is None:
            return first
        fastest = min(self.options, key=lambda option: option.wall_s)
        cheapest = min(self.options, key=lambda option: math.inf if option.usd is None else option.usd)
        said = f"nothing answers {self.question.samples:,} samples within these limits: the fastest is {fastest.name} "
        said += f"({seconds_text(fastest.wall_s)}{'' if fastest.problem is None else ', ' + fastest.problem})"
        if cheapest.usd is not None:
            said += f", the cheapest {cheapest.name} (USD {usd_text(cheapest.usd)})"
        raise SettingError(said)

    @property
    def best_functions(self) -> Option | None:
        """The first option that is not a server and can be had."""
        return next((option for option in self.options if not option.is_server and option.problem is None), None)

    def to_json(self) -> dict[str, Any]:
        """Return the answer as plain JSON values."""
        return {
            "question": asdict(self.question),
            "rule": self.question.rule,
            "prices": self.prices,
            "timing": self.timing,
            "options": [option.to_json() for option in self.options],
            "break_even": None if self.break_even is None else asdict(self.break_even),
        }
