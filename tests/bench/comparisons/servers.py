"""Daily cost of functions and servers by queries a day, and the break-even points."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fsd_inference.cost.prices import PriceTable
from fsd_inference.forecast.cut import Cut
from fsd_inference.forecast.options import Option, Question
from fsd_inference.forecast.planner import KEPT_WARM_S, plan_options
from fsd_inference.forecast.timing import Timing
from fsd_inference.forecast.workload import DAY_S

QUERIES = tuple(float(count) for count in np.geomspace(1, 1e6, 25))
HEADS = ("network", "kind", "option", "time", "USD a query", "USD a day", "always-on from, queries a day")


@dataclass(frozen=True, slots=True)
class Alternative:
    """The cheapest option of one kind for a number of queries a day.

    Attributes
    ----------
    kind : str
        One of functions, job server, job cluster, always-on server and always-on cluster.
    queries_a_day : float
        Number of queries a day.
    option : Option
        The option that runs one query.
    usd_a_day : float
        Dollars a day, with as many servers as the queries need.
    """

    kind: str
    queries_a_day: float
    option: Option
    usd_a_day: float


def alternatives(
    cuts: Mapping[int, Cut], samples: int, queries: Sequence[float], timing: Timing, prices: PriceTable
) -> Iterator[Alternative]:
    """Yield the cheapest option of each kind for each number of queries a day."""
    # The query rate determines whether functions are warm, and how many servers are needed.
    seldom, often = (
        plan_options(cuts, Question(samples, queries_a_day=count), timing, prices)
        for count in (1.0, DAY_S / KEPT_WARM_S)
    )
    for count in queries:
        advice = often if count * KEPT_WARM_S >= DAY_S else seldom
        cheapest: dict[str, Alternative] = {}
        for option in advice.options:
            if option.problem is None:
                kind = option.variant if option.is_server else "functions"
                found = Alternative(kind, count, option, _usd_a_day(option, count))
                if kind not in cheapest or found.usd_a_day < cheapest[kind].usd_a_day:
                    cheapest[kind] = found
        yield from cheapest.values()


def _usd_a_day(option: Option, queries: float) -> float:
    if option.usd_a_day is None:
        return queries * (option.usd or 0.0)
    # As many servers as answer all queries in a day; simultaneous queries wait.
    return option.usd_a_day * max(1, math.ceil(queries * option.wall_s / DAY_S))


def break_even(found: Sequence[Alternative], kind: str = "always-on server") -> float | None:
    """Return the number of queries a day above which the cheapest server of a kind costs less than functions.

    None if one server cannot answer that many queries: functions then cost less than the number of servers needed.
    """
    servers = [one.option for one in found if one.kind == kind]
    functions = [one.option for one in found if one.kind == "functions"]
    if not servers or not functions:
        return None
    server = min(servers, key=lambda option: option.usd_a_day or 0.0)
    seldom, often = ((server.usd_a_day or 0.0) / (option.usd or 1.0) for option in (functions[0], functions[-1]))
    even = often if often * KEPT_WARM_S >= DAY_S else seldom
    return even if even * server.wall_s <= DAY_S else None


def rows(name: str, found: Sequence[Alternative], queries: float = 1000.0) -> Iterator[tuple[object, ...]]:
    """Yield table rows of the cheapest option of each kind by approximate queries a day."""
    count = min({one.queries_a_day for one in found}, key=lambda each: abs(math.log(each / queries)))
    for one in sorted((one for one in found if one.queries_a_day == count), key=lambda one: one.usd_a_day):
        even = break_even(found, one.kind) if one.option.usd_a_day is not None else None
        a_query = "" if one.option.usd_a_day is not None else f"{one.option.usd:.2g}"
        yield (
            name, one.kind, one.option.name, f"{one.option.wall_s:.3g} s", a_query, f"{one.usd_a_day:.3g}",
            "" if one.option.usd_a_day is None else "never" if even is None else f"{even:,.0f}",
        )  # fmt: skip
