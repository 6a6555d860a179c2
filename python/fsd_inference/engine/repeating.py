"""Repeats: frames that a receiver misses for long are asked for again, and sent again from those kept."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Sequence

from fsd_inference.channels.base import Frame
from fsd_inference.engine.messages import AskAgain, Step

ASKS = 2
"""How often the frames of a step are asked for: after a third and after two thirds of the stall timeout."""
KEPT_STEPS = 3
"""Steps of a micro-batch whose frames a rank keeps: a rank whose frames were lost holds those that it feeds up soon."""

_PAYLOAD = struct.Struct("<II")  # layer and micro-batch


class Repeats:
    """What a rank has asked for again.

    Parameters
    ----------
    stall_s : float
        Seconds without a frame from a source after which the run ends.
    """

    def __init__(self, stall_s: float) -> None:
        self._stall_s = stall_s
        self._asked: defaultdict[tuple[Step, int], int] = defaultdict(int)
        self._number = 0

    def due(self, stalled_at: float, step: Step, source: int) -> float:
        """Return when to act for a source that a step waits for: to ask again, or in the end to report a stall.

        Parameters
        ----------
        stalled_at : float
            When the stall timeout expires.
        step : Step
            The step whose frames are missing.
        source : int
            The rank that sends them.
        """
        left = ASKS - self._asked[step, source]
        return stalled_at - self._stall_s * left / (ASKS + 1)

    def ask(self, stalls: Iterable[tuple[float, int, Step]], now: float) -> list[AskAgain]:
        """Return the requests that are due, given (when the stall timeout expires, source, step) of what is missing."""
        sources: defaultdict[Step, list[int]] = defaultdict(list)
        for stalled_at, source, step in stalls:
            if self._asked[step, source] < ASKS and now >= self.due(stalled_at, step, source):
                self._asked[step, source] += 1
                sources[step].append(source)
        asked = []
        for step, of_step in sorted(sources.items()):
            asked.append(AskAgain(step, tuple(of_step), self._number))
            self._number += 1
        return asked


class KeptFrames:
    """The frames of the last steps that a rank has sent."""

    def __init__(self) -> None:
        self._frames: dict[Step, Sequence[Frame]] = {}

    def keep(self, step: Step, frames: Sequence[Frame]) -> None:
        """Keep the frames of a step; those of the step `KEPT_STEPS` layers earlier are dropped."""
        self._frames[step] = frames
        self._frames.pop(Step(step.layer - KEPT_STEPS, step.micro_batch), None)

    def of(self, step: Step, target: int) -> list[Frame]:
        """Return the frames of a step that are for `target`, addressed to it alone; empty if they are not there."""
        return [
            Frame(frame.kind, frame.layer, frame.micro_batch, (target,), frame.body)
            for frame in self._frames.get(step, ())
            if target in frame.targets
        ]


def repeat_payload(step: Step) -> bytes:
    """Return the payload of the control frame that asks for the frames of a step."""
    return _PAYLOAD.pack(*step)


def parse_repeat(payload: bytes) -> Step | None:
    """Parse the output of `repeat_payload`; return None for anything else."""
    return Step(*_PAYLOAD.unpack(payload)) if len(payload) == _PAYLOAD.size else None
