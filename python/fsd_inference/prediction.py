"""What is foreseen of a run: requests, bytes, wall time, and the time of Lambda functions."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from fsd_inference.errors import SettingError
from fsd_inference.fields import Fields
from fsd_inference.usage import Usage

ARCHITECTURES = ("x86_64", "arm64")


@dataclass(frozen=True, slots=True)
class FunctionTime:
    """Time of Lambda functions of one size, as Lambda bills it.

    Attributes
    ----------
    memory_mb : int
    architecture : {"x86_64", "arm64"}
    seconds : float
        From start to end, summed over the invocations: launching, loading and waiting included.
    invocations : int
    """

    memory_mb: int
    architecture: str
    seconds: float
    invocations: int

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise SettingError(f"architecture must be {' or '.join(ARCHITECTURES)}, not {self.architecture!r}")
        if self.memory_mb < 1 or not 0 <= self.seconds < math.inf or self.invocations < 0:
            raise SettingError(
                "a function's time needs at least 1 MB, and no negative seconds or invocations: "
                f"not {self.memory_mb} MB, {self.seconds} s, {self.invocations} invocations"
            )


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was foreseen of a run before it was made.

    Attributes
    ----------
    usage : Usage
        Requests and bytes.
    functions : tuple of FunctionTime
        Time of workers and coordinator; none where time was not foreseen.
    wall_s : float or None
        From the call to the result; None where time was not foreseen.
    """

    usage: Usage
    functions: tuple[FunctionTime, ...] = ()
    wall_s: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the prediction as plain JSON values."""
        return {
            "usage": self.usage.to_json(),
            "functions": [asdict(function) for function in self.functions],
            "wall_s": self.wall_s,
        }

    @classmethod
    def from_json(cls, value: object) -> Prediction:
        """Rebuild a prediction from `to_json`; FileFormatError names the field that is missing or wrong."""
        fields = Fields(value, "predicted.")
        functions = tuple(
            FunctionTime(
                each.take("memory_mb", int),
                each.take("architecture", str),
                each.take_number("seconds"),
                each.take("invocations", int),
            )
            for each in fields.take_each("functions")
        )
        usage = Usage.from_fields(fields.take_fields("usage"))
        return cls(usage, functions, fields.take_number_if("wall_s"))
