"""Workloads: a day's queries, read from a trace file or drawn at random."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from fsd_inference.errors import FileFormatError, SettingError
from fsd_inference.forecast.options import MOST_SAMPLES

DAY_S = 86_400.0
PATTERNS = ("sporadic", "diurnal", "bursty")
_HEADER = ["seconds", "samples"]
_SEPARATORS = ",", ";", "\t"
_SWING = 0.9  # diurnal: relative amplitude of the rate over the day
_BURST, _APART_S = 20.0, 5.0  # bursty: mean number of queries in a burst, and mean seconds between them
_MOST_QUERIES = 1_000_000  # limits memory, as each query is an object; more would add no information about a day
_SPREAD = 0.5  # standard deviation of the natural logarithm of a query's samples


@dataclass(frozen=True, slots=True)
class Query:
    """A query: its time of arrival in seconds since midnight, and its number of samples."""

    at_s: float
    samples: int


def parse_trace(text: str, what: str) -> tuple[Query, ...]:
    """Parse a trace, a table with the columns ``seconds`` (since midnight) and ``samples``; return its queries by time.

    Columns are separated by commas, semicolons or tabs, whichever the header line uses. Upper case in the header,
    quotes and spaces around fields, blank lines and a byte-order mark are ignored. Decimals are written with a point.

    Parameters
    ----------
    text : str
        The file's content.
    what : str
        Name of the file in error messages.

    Raises
    ------
    FileFormatError
        The header or a line is wrong, or there is no query; the message names the line.
    """
    lines = enumerate(io.StringIO(text.removeprefix("\ufeff"), newline=None), 1)
    _, header = next(lines, (1, ""))
    separator = next(
        (mark for mark in _SEPARATORS if [name.lower() for name in _fields(header, mark)] == _HEADER), None
    )
    if separator is None:
        raise FileFormatError(f"{what}, line 1: must be {','.join(_HEADER)!r}, not {header.strip()!r:.60}")
    rows = ((number, line.strip()) for number, line in lines)
    queries = tuple(_query(line, separator, f"{what}, line {number}") for number, line in rows if line)
    if not queries:
        raise FileFormatError(f"{what}: the trace is empty: it needs at least one query")
    return tuple(sorted(queries, key=lambda query: query.at_s))


def _fields(line: str, separator: str) -> list[str]:
    fields = (field.strip() for field in line.split(separator))
    return [field[1:-1].strip() if len(field) > 1 and field[0] == field[-1] == '"' else field for field in fields]


def _query(line: str, separator: str, where: str) -> Query:
    try:
        if "_" in line or not line.isascii():  # Python's number parsers accept underscores and non-ASCII digits
            raise ValueError(line)
        seconds, samples = _fields(line, separator)
        query = Query(float(seconds), int(samples))
    except ValueError:
        hint = " (decimals have a point)" if separator != "," and "," in line else ""
        raise FileFormatError(f"{where}: must be seconds and samples{hint}, not {line!r:.60}") from None
    if not 0 <= query.at_s < DAY_S:
        raise FileFormatError(
            f"{where}: seconds since midnight must be at least 0 and below {DAY_S:.0f}, not {query.at_s:g}"
        )
    if not 1 <= query.samples <= MOST_SAMPLES:
        raise FileFormatError(f"{where}: samples must be 1 to {MOST_SAMPLES:,}, not {query.samples}")
    return query


def trace_text(queries: Iterable[Query]) -> str:
    """Return the text of a trace file."""
    lines = (f"{query.at_s:.3f},{query.samples}" for query in queries)
    return "\n".join([",".join(_HEADER), *lines]) + "\n"


def drawn_trace(pattern: str, queries_a_day: float, samples: int, seed: int = 0) -> tuple[Query, ...]:
    """Draw a day's queries at random.

    Parameters
    ----------
    pattern : {"sporadic", "diurnal", "bursty"}
        Sporadic queries are equally likely at any time; diurnal ones are 19 times as likely at noon as at midnight;
        bursty ones come in bursts of minutes, with hours between them.
    queries_a_day : float
        Mean number of queries; at least one is drawn.
    samples : int
        Median number of samples of a query; the numbers vary by about a half.
    seed : int

    Returns
    -------
    tuple of Query
        By ascending time.

    Raises
    ------
    SettingError
        The pattern is unknown, or a number is not positive or too large.
    """
    if pattern not in PATTERNS:
        raise SettingError(f"pattern must be one of {', '.join(PATTERNS)}, not {pattern!r}")
    if not 0 < queries_a_day <= _MOST_QUERIES:
        raise SettingError(f"a day must have more than 0 and at most {_MOST_QUERIES:,} queries, not {queries_a_day:g}")
    if not 1 <= samples <= MOST_SAMPLES:
        raise SettingError(f"samples must be 1 to {MOST_SAMPLES:,}, not {samples}")
    rng = np.random.default_rng(seed)
    times = sorted(_times(pattern, queries_a_day, rng)) or [float(rng.uniform(0, DAY_S))]
    sizes = np.round(samples * np.exp(rng.normal(0, _SPREAD, len(times)))).clip(1, MOST_SAMPLES).astype(int)
    return tuple(Query(at, int(size)) for at, size in zip(times, sizes, strict=True))


def _times(pattern: str, queries_a_day: float, rng: np.random.Generator) -> Iterator[float]:
    if pattern == "bursty":
        for start in rng.uniform(0, DAY_S, rng.poisson(queries_a_day / _BURST)):
            at = start + np.cumsum(rng.exponential(_APART_S, rng.geometric(1 / _BURST)))
            yield from at[at < DAY_S].tolist()
        return
    for at in rng.uniform(0, DAY_S, rng.poisson(queries_a_day * (1 + _SWING))).tolist():
        swing = -_SWING * math.cos(2 * math.pi * at / DAY_S) if pattern == "diurnal" else 0.0
        if rng.random() < (1 + swing) / (1 + _SWING):
            yield at
