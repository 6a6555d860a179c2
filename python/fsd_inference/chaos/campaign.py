"""Many schedules in a row, and the tables of what became of them."""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

from fsd_inference.chaos.client import serial_digest
from fsd_inference.chaos.processes import check_proc
from fsd_inference.chaos.schedule import KINDS
from fsd_inference.chaos.site import Site, site
from fsd_inference.chaos.trial import FAILURES, Outcome, Trials

COLUMNS = (
    "fault",
    "runs",
    "right",
    "error",
    "unnamed",
    "ended",
    *FAILURES,
    "not reached",
    "resumed",
    "left",
    "mean s",
    "max s",
)
"""Columns of the table of outcomes. "resumed" counts the answers of attempts that went on from a checkpoint, "left" the
runs that left something which the next run, or `fsd runs clean`, then removed; the seconds are those of the disturbed
runs alone."""


@contextmanager
def trials() -> Iterator[Trials]:
    """Yield what carries out schedules; the emulated stack is started when it is first needed.

    Raises
    ------
    SettingError
        The system has no /proc.
    """
    check_proc()
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="fsd-chaos-")))

        @cache
        def open_site(on_functions: bool) -> Site:
            where = folder / ("functions" if on_functions else "processes")
            return opened.enter_context(site(where, on_functions=on_functions))

        yield Trials(folder, serial_digest(), open_site)


def rows(outcomes: Sequence[Outcome]) -> list[tuple[object, ...]]:
    """Return the rows of the table of outcomes: one for each kind of fault, and the last for all."""
    by_name: defaultdict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_name[outcome.schedule.name].append(outcome)
    names = [name for name in (*KINDS, "two at once") if name in by_name]
    return [_row(name, by_name[name]) for name in names] + [_row("all", outcomes)]


def _row(name: str, outcomes: Sequence[Outcome]) -> tuple[object, ...]:
    verdicts = Counter(str(outcome.verdict) for outcome in outcomes)
    seconds = [outcome.seconds for outcome in outcomes]
    return (
        name,
        len(outcomes),
        *(verdicts[verdict] for verdict in COLUMNS[2 : 6 + len(FAILURES)]),
        sum(not outcome.is_fired for outcome in outcomes),
        sum(outcome.resumed_at > 0 for outcome in outcomes),
        sum(bool(outcome.left) for outcome in outcomes),
        f"{sum(seconds) / len(seconds):.1f}",
        f"{max(seconds):.1f}",
    )
