"""The planner's records: the question, the options and the advice."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from fsd_inference.config import check_checkpoints
from fsd_inference.errors import SettingError
from fsd_inference.forecast.managed import managed_function
from fsd_inference.limits import (
    ACCOUNT_CONCURRENCY,
    DEFAULT_INVOCATION_S,
    INVOCATION_S,
    LARGEST_FUNCTION_MB,
    LARGEST_MESSAGE_BYTES,
    LEAST_MESSAGE_BYTES,
    MESSAGE_BYTES,
)
from fsd_inference.markup import records_table
from fsd_inference.prediction import ARCHITECTURES
from fsd_inference.units import seconds_text, usd_text

MOST_SAMPLES = 1_000_000_000
"""Maximum samples of a query: a billion, far beyond the sizes for which times and bytes were measured."""
MOST_BUCKETS = 20
"""Maximum number of run buckets (terraform/variables.tf)."""
MANAGED = "managed instances"
"""The variant of one function on Lambda Managed Instances, which is considered where a question names their type."""
VARIANTS = (
    "serial", "queue", "object", "express", "direct",
    "job server", "always-on server", "job cluster", "always-on cluster", MANAGED,
)  # fmt: skip
"""`express` is `object` over S3 Express One Zone. `direct` is Lambda MicroVMs that send each other frames. A cluster is
several servers that exchange rows by MPI. `express`, `direct`, servers and clusters are only modelled: this package
does not run them. Managed instances run where a stack has them, but no plan chooses them."""
MODELLED = ("express", "direct")
"""Variants on Lambda that are only modelled."""
OPTION_COLUMNS = ("option", "MB", "b", "M", "time", "USD a query", "", "why")
"""Headers of a table of options, whose cells `Option.row` returns."""
_SHOWN = 15  # options that a notebook shows
LIMITS = ("memory", "quota", "invocation", "deadline", "budget", "rate")
"""Limits that rule options out: memory of a function or server, the account's publishing quota and the quotas of
MicroVMs, duration of an invocation, deadline and budget of the question, and queries a day that a server can answer."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question to the planner: the batch to run, and the limits that options must keep.

    Attributes
    ----------
    samples : int
        Number of samples in a query's batch.
    deadline_s : float or None
        Longest time to answer a query in seconds.
    budget_usd : float or None
        Highest cost of a query in dollars.
    queries_a_day : float or None
        Number of queries a day. It determines what an always-on server costs per query, and unless `cold` is given
        whether functions are still warm.
    largest_mb : int
        Memory in MB of the largest function that the account allows; new accounts start with 3,008 MB.
    architecture : {"x86_64", "arm64"}
        Processor architecture of the functions.
    most_workers : int
        Maximum number of workers of a run.
    cold : bool or None
        Whether the functions' environments start cold, as in the first run of a stack; None: by `queries_a_day`, and
        cold without it.
    buckets : int
        Number of buckets over which `object` spreads its objects; each admits a limited rate of requests.
    message_bytes : int
        Largest message of the topics of `queue` in bytes (`StackSpec.message_bytes`).
    managed_instances : str or None
        EC2 instance type of Lambda Managed Instances to consider for the network undivided. They are paid all month,
        with or without queries: unlike functions they do not scale to zero.
    checkpoint_every : int or "auto"
        Number of layers between the checkpoints of runs on functions, from which a run goes on that takes longer than a
        function may; ``"auto"`` for the number that costs least, 0 for none.
    timeout_s : float
        Time limit of the functions in seconds, at which such runs are handed on.

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
    cold: bool | None = None
    buckets: int = 1
    message_bytes: int = MESSAGE_BYTES
    managed_instances: str | None = None
    checkpoint_every: int | Literal["auto"] = 0
    timeout_s: float = DEFAULT_INVOCATION_S

    def __post_init__(self) -> None:
        for name, least, most in (
            ("samples", 1, MOST_SAMPLES),
            ("most_workers", 1, ACCOUNT_CONCURRENCY),
            ("largest_mb", 128, LARGEST_FUNCTION_MB),
            ("buckets", 1, MOST_BUCKETS),
            ("message_bytes", LEAST_MESSAGE_BYTES, LARGEST_MESSAGE_BYTES),
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
        if self.managed_instances is not None:
            managed_function(self.managed_instances)
        if self.checkpoint_every != "auto":
            check_checkpoints(self.checkpoint_every)
        if not 0 < self.timeout_s <= INVOCATION_S:
            raise SettingError(f"timeout_s must be more than 0 and at most {INVOCATION_S:.0f}, not {self.timeout_s:g}")

    @property
    def rule(self) -> str:
        """The rule by which options are ranked, in words."""
        if self.deadline_s is None and self.budget_usd is not None:
            return f"the fastest for at most USD {usd_text(self.budget_usd)} a query"
        limits = [f"within {self.deadline_s:g} s"] if self.deadline_s is not None else []
        limits += [f"for at most USD {usd_text(self.budget_usd)}"] if self.budget_usd is not None else []
        return " ".join(["the cheapest", *limits])

    def prefers(self, option: Option) -> tuple[bool, float, float]:
        """Return the sort key of an option: feasible options first, then by cost and time as `rule` says."""
        by_time = self.deadline_s is None and self.budget_usd is not None
        usd = math.inf if option.usd is None else option.usd
        return (option.problem is not None, *((option.wall_s, usd) if by_time else (usd, option.wall_s)))

    def checked(self, option: Option) -> Option:
        """Return an option with the first limit of the question that it exceeds, if any."""
        if self.deadline_s is not None and option.wall_s > self.deadline_s:
            return replace(option, limit="deadline", problem=f"after the deadline of {self.deadline_s:g} s")
        if self.budget_usd is not None and option.usd is not None and option.usd > self.budget_usd:
            return replace(option, limit="budget", problem=f"over the budget of USD {usd_text(self.budget_usd)}")
        return option


@dataclass(frozen=True, slots=True)
class Option:
    """One way to answer a query, with its predicted time, cost and memory.

    Attributes
    ----------
    variant : str
        One of `VARIANTS`.
    workers : int
        Workers P of a run, or servers of a cluster.
    replicas : int
        Number of concurrent runs, each of a slice of the batch.
    memory_mb : int or None
        Memory in MB of each worker's function, also on managed instances, or baseline memory of its MicroVM; None for
        servers.
    branching, micro_batches : int
        See `RunSettings`.
    instance : str or None
        EC2 instance type of a server, of each server of a cluster, or of managed instances; None for other functions.
    wall_s : float
        Seconds from the query to its answer.
    usd : float or None
        Cost of a query in dollars; None for an always-on server if the number of queries a day is not known.
    usd_a_day : float or None
        Cost in dollars a day of an always-on server, or of managed instances without requests.
    need_mb : float
        Memory in MB (10^6 bytes) that the largest rank, or server, needs.
    services : dict of str to float or None
        Cost of a query in dollars by service.
    reason : str
        What most of its time and most of its cost are spent on.
    problem : str or None
        Why the option is not feasible; None if it is.
    limit : str or None
        The limit that it exceeds, one of `LIMITS`.
    is_estimated : bool
        Whether the exchange was estimated instead of computed by partitioning the network.
    is_pareto : bool
        Whether no other option is both faster and cheaper (Pareto-optimal).
    checkpoint_every : int
        Number of layers between checkpoints; 0 for none.
    attempts : int
        Number of attempts, each with an invocation of every function: more than one if the run is handed on.
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
    checkpoint_every: int = 0
    attempts: int = 1

    @property
    def name(self) -> str:
        """Display name of the option."""
        if self.instance is not None:
            return f"{self.variant} {self.servers}"
        if self.variant == "serial":
            return "serial" if self.replicas == 1 else f"serial, {self.replicas} replicas"
        return f"{self.variant}, P={self.workers}"

    @property
    def servers(self) -> str:
        """Instance type of a server option, with the number of servers if there are several."""
        return f"{self.instance}" if self.workers == 1 else f"{self.workers} x {self.instance}"

    @property
    def is_server(self) -> bool:
        """Whether the option uses EC2 instances, which may be managed, instead of functions that scale to zero."""
        return self.instance is not None

    @property
    def is_modelled_only(self) -> bool:
        """Whether no plan chooses it: it uses servers, managed instances, S3 Express One Zone or MicroVMs."""
        return self.is_server or self.variant in MODELLED

    def row(self) -> tuple[str, ...]:
        """Return the option as a row of a table with `OPTION_COLUMNS`."""
        is_spread = self.workers > 1
        return (
            self.name,
            "" if self.memory_mb is None else f"{self.memory_mb:,}",
            str(self.branching) if is_spread else "",
            str(self.micro_batches) if is_spread else "",
            seconds_text(self.wall_s),
            "" if self.usd is None else usd_text(self.usd),
            f"{'~' if self.is_estimated else ''}{'*' if self.is_pareto else ''}",
            self.problem or self.reason,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the option as plain JSON values."""
        return {"name": self.name, "is_modelled_only": self.is_modelled_only, **asdict(self)}


@dataclass(frozen=True, slots=True)
class BreakEven:
    """The number of queries a day from which an always-on server costs less than the best functions.

    Attributes
    ----------
    queries_a_day : float
    servers : str
        Instance type, with the number of servers if there are several.
    usd_a_day : float
        Cost of the servers in dollars a day.
    most_queries_a_day : float
        Most queries a day that the servers can answer, one after the other.
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
class ManagedFleet:
    """What Lambda Managed Instances cost a month, and from how many queries a day they cost less than functions.

    Attributes
    ----------
    instances : str
        Number and type of the instances.
    usd_a_month : float
        Cost in dollars of 30 days, which is the same without any query.
    queries_a_day : float or None
        None if no functions can answer the query, or if each query costs no more on functions.
    most_queries_a_day : float
        Most queries a day that the instances can answer, one after the other on each.
    """

    instances: str
    usd_a_month: float
    queries_a_day: float | None
    most_queries_a_day: float

    def __str__(self) -> str:
        said = f"{self.instances}, USD {self.usd_a_month:,.0f} in 30 days also without queries"
        if self.queries_a_day is None:
            return said
        said += f"; from {self.queries_a_day:,.0f} queries a day on they cost less than functions"
        if self.queries_a_day > self.most_queries_a_day:
            said += f", but answer no more than {self.most_queries_a_day:,.0f}"
        return said


@dataclass(frozen=True, slots=True)
class Advice:
    """The planner's answer: all options, the best first.

    Attributes
    ----------
    question : Question
    options : tuple of Option
        The best options of each variant and number of workers, ranked; infeasible ones last.
    break_even : BreakEven or None
        None if there is no feasible option on functions, or no always-on server that keeps memory and deadline.
    managed : ManagedFleet or None
        None if the question names no managed instances, or if these cannot answer it.
    prices, timing : str
        Names and dates of the price table and of the timing values used.
    is_cold : bool
        Whether the functions' environments start cold.
    """

    question: Question
    options: tuple[Option, ...]
    break_even: BreakEven | None
    managed: ManagedFleet | None
    prices: str
    timing: str
    is_cold: bool

    @property
    def title(self) -> str:
        """The question, and what prices and times rest on."""
        state = "cold" if self.is_cold else "warm"
        return f"{self.question.rule}, {self.question.samples:,} samples, {state}; {self.prices}; {self.timing}"

    def _repr_html_(self) -> str:
        shown = [option.row() for option in self.options[:_SHOWN]]
        left = len(self.options) - len(shown)
        more = [(f"and {left:,} more", *[""] * (len(OPTION_COLUMNS) - 1))] if left else []
        return records_table(self.title, OPTION_COLUMNS, [*shown, *more])

    @property
    def best(self) -> Option:
        """The best feasible option.

        Raises
        ------
        SettingError
            No option is feasible; the message gives the fastest and the cheapest one.
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
        """The best feasible option on functions, or None."""
        return next((option for option in self.options if not option.is_server and option.problem is None), None)

    def to_json(self) -> dict[str, Any]:
        """Return the advice as plain JSON values."""
        return {
            "question": asdict(self.question),
            "rule": self.question.rule,
            "prices": self.prices,
            "timing": self.timing,
            "is_cold": self.is_cold,
            "options": [option.to_json() for option in self.options],
            "break_even": None if self.break_even is None else asdict(self.break_even),
            "managed": None if self.managed is None else asdict(self.managed),
        }
