"""Schedules of faults, drawn from a seed: equal seeds give equal schedules.

A fault happens when rank 0 has completed some number of layers, or when some request of a kind is made, not at a time,
so that a schedule can be replayed on a machine of another speed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fsd_inference.chaos.error_answers import ERRORS
from fsd_inference.errors import SettingError

LAYERS = 12
"""Number of layers of the network that all schedules run."""
LARGEST_P = 8

NONE = "none"
PLACES = ("local", "queue", "object", "queue on functions", "object on functions")
"""Channels between local processes, and between functions of the emulated AWS."""

PROCESS_PLACES, FUNCTION_PLACES = PLACES[:3], PLACES[3:]

_LOCAL = PLACES[:1]
_SERVICES = PLACES[1:3]

_PLACES_OF: dict[str, Sequence[str]] = {
    NONE: PLACES,
    # processes
    "kill rank": PROCESS_PLACES,
    "stop rank": PROCESS_PLACES,
    "pause rank": PROCESS_PLACES,
    "rank out of memory": PROCESS_PLACES,
    "disk full": PROCESS_PLACES,
    "kill fork server": PROCESS_PLACES,
    "kill client": PROCESS_PLACES,
    "signal client": PROCESS_PLACES,
    "cut connections": _LOCAL,
    "kill coordinator": FUNCTION_PLACES,
    "kill function": FUNCTION_PLACES,
    # the emulator
    "pause emulator": _SERVICES,
    "stop emulator": _SERVICES,
    "restart emulator": _SERVICES,
    # requests
    "lose request": _SERVICES,
    "lose answer": _SERVICES,
    "double request": _SERVICES,
    "delay request": _SERVICES,
    "reorder": _SERVICES,
    "cut answer": _SERVICES,
    "corrupt body": _SERVICES,
    "partial batch": ("queue",),
    "error code": _SERVICES,
    "throttle": _SERVICES,
    "reset connection": _SERVICES,
    "no answer": _SERVICES,
    "clock skew": _SERVICES,
    "lose invocation": FUNCTION_PLACES,
    "double invocation": FUNCTION_PLACES,
    "invocation error": FUNCTION_PLACES,
}
KINDS = tuple(_PLACES_OF)
"""All kinds of faults."""
OF_PROCESSES = frozenset(KINDS[1 : KINDS.index("lose request")])
"""Kinds that happen to a process; the others happen to requests."""

_TARGETS = {
    "queue": ("sns.publish", "sqs.receive", "s3.get", "s3.put"),
    "object": ("s3.put", "s3.get", "s3.list"),
}
_LOSABLE = {"queue": ("sns.publish", "s3.put"), "object": ("s3.put",)}
_FREQUENT = {"sns.publish", "sqs.receive"}
_OF_RANKS = {"kill rank", "stop rank", "pause rank", "rank out of memory", "cut connections"}
_LASTING = {"pause rank", "pause emulator", "restart emulator"}
SIGNALS = ("SIGHUP", "SIGINT", "SIGTERM")


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of a schedule.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    at : int
        Layers that rank 0 has completed when it happens, or number of the first of the requests concerned.
    rank : int or None
        The rank to which it happens; None for another process.
    request : str
        Kind of the requests concerned, such as "s3.put"; empty for all.
    times : int
        Number of requests concerned.
    seconds : float
        How long it lasts, or the shift of a clock.
    detail : str
        Name of the signal, or code of the error.
    """

    kind: str
    at: int = 0
    rank: int | None = None
    request: str = ""
    times: int = 1
    seconds: float = 0.0
    detail: str = ""

    def __str__(self) -> str:
        """Return one line that says what happens when."""
        parts = [self.kind if self.rank is None else f"{self.kind} {self.rank}", self.detail]
        if self.kind in OF_PROCESSES and not self.request:
            parts.append(f"after layer {self.at}")
        elif self.request:
            parts.append(f"at {self.request} {self.at}" + (f" to {self.at + self.times - 1}" if self.times > 1 else ""))
        parts.append(f"{self.seconds:g} s" if self.seconds else "")
        return " ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A run and the faults that are injected into it.

    Attributes
    ----------
    seed : int
    place : str
        One of `PLACES`.
    workers : int
        P.
    branching : int
        Branching factor of the launch tree.
    attempts : int
        Maximum number of attempts.
    faults : tuple of Fault
        In no particular order; none for a run to compare with.
    checkpoint_every : int
        Layers between checkpoints, from which another attempt goes on; 0 for none.
    """

    seed: int
    place: str
    workers: int
    branching: int
    attempts: int
    faults: tuple[Fault, ...]
    checkpoint_every: int = 0

    @property
    def channel(self) -> str:
        """The channel: "local", "queue" or "object"."""
        return self.place.split()[0]

    @property
    def on_functions(self) -> bool:
        """Whether the ranks are functions."""
        return self.place in FUNCTION_PLACES

    @property
    def name(self) -> str:
        """The kinds of faults, for tables."""
        return " + ".join(fault.kind for fault in self.faults) if len(self.faults) == 1 else self._several()

    def _several(self) -> str:
        return "two at once" if self.faults else NONE

    def __str__(self) -> str:
        """Return one line that says what is run, and what happens to it."""
        what = "; ".join(map(str, self.faults)) or "no fault"
        stored = f", checkpoints every {self.checkpoint_every} layers" if self.checkpoint_every else ""
        run = f"{self.place}, P={self.workers}, b={self.branching}, attempts {self.attempts}{stored}"
        return f"seed {self.seed}: {run}: {what}"

    def to_json(self) -> dict[str, Any]:
        """Return the schedule as plain JSON values."""
        return asdict(self)


def draw(seed: int, places: Sequence[str] = PROCESS_PLACES) -> Schedule:
    """Return the schedule of a seed, for a run at one of the given places.

    Seeds that follow each other go through all kinds of faults at all of these places; of five schedules one has a
    second fault, and two have checkpoints.

    Raises
    ------
    SettingError
        A place is unknown.
    """
    unknown = [place for place in places if place not in PLACES]
    if unknown or not places:
        raise SettingError(f"runs take place over {', '.join(PLACES)}, not {', '.join(unknown) or 'nothing'}")
    pairs = [(kind, place) for kind in KINDS for place in _PLACES_OF[kind] if place in places]
    kind, place = pairs[seed * _STRIDE % len(pairs)]
    draws = random.Random(seed)  # noqa: S311 - faults, no secrets
    workers = draws.randint(2, LARGEST_P)
    kinds = [] if kind == NONE else [kind]
    if kinds and draws.random() < 0.2:
        kinds.append(draws.choice([other for other, at in pairs if at == place and other not in {kind, NONE}]))
    faults = tuple(_draw(each, place, workers, draws) for each in kinds)
    branching, attempts, every = draws.choice((1, 2, 4)), draws.choice((1, 2, 2)), draws.choice((0, 0, 0, 2, 5))
    return Schedule(seed, place, workers, branching, attempts, faults, every)


_STRIDE = 37
"""Step through the pairs of kind and place: so that a few seeds in a row differ in both; prime to their numbers."""


def _draw(kind: str, place: str, workers: int, draws: random.Random) -> Fault:
    if kind in OF_PROCESSES:
        return _draw_process(kind, place, workers, draws)
    channel = place.split(maxsplit=1)[0]
    if place in FUNCTION_PLACES:
        request = "lambda.invoke"
    elif kind == "clock skew":
        return Fault(kind, seconds=draws.choice((-1, 1)) * 60.0 * draws.randint(1, 15))
    elif kind == "partial batch":
        request = "sns.publish"
    elif kind == "reorder":
        request = "sqs.receive" if channel == "queue" else "s3.put"
    else:
        request = draws.choice((_LOSABLE if kind == "lose request" else _TARGETS)[channel])
    often = request in _FREQUENT or (channel == "object" and request == "s3.put")
    at = draws.randrange(workers * (6 if often else 2))
    if kind in {"error code", "invocation error"}:
        return Fault(
            kind, at, request=request, times=draws.randint(1, 10), detail=draws.choice(sorted(ERRORS[request]))
        )
    if kind == "throttle":
        return Fault(kind, at, request=request, seconds=round(draws.uniform(1.0, 6.0), 1))
    if kind in {"delay request", "reorder"}:
        return Fault(kind, at, request=request, times=draws.randint(1, 10), seconds=round(draws.uniform(0.2, 3.0), 1))
    once = {"lose request", "no answer", "lose invocation"}
    return Fault(kind, at, request=request, times=1 if kind in once else draws.randint(1, 3))


def _draw_process(kind: str, place: str, workers: int, draws: random.Random) -> Fault:
    at = draws.randrange(kind == "cut connections", LAYERS)  # which there are none of before the first layer
    if place in FUNCTION_PLACES:
        return Fault(kind, draws.randrange(3 * workers), rank=draws.randrange(workers), request="s3.put")
    victim: int | None = None
    if kind in _OF_RANKS or (kind == "disk full" and draws.random() < 0.5):
        victim = draws.randrange(workers)
    seconds = round(draws.uniform(0.2, 5.0), 1) if kind in _LASTING else 0.0
    return Fault(kind, at, victim, seconds=seconds, detail=draws.choice(SIGNALS) if kind == "signal client" else "")
