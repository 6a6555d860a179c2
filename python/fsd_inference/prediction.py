"""Predictions of a run: requests, bytes, wall time, and billed time of Lambda functions."""

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
    """Billed time of the Lambda functions of one memory size.

    Attributes
    ----------
    memory_mb : int
        Memory of each function in MB.
    architecture : {"x86_64", "arm64"}
        Instruction set of the functions.
    seconds : float
        Duration from start to end in seconds, summed over the invocations; includes launching, loading and waiting.
    invocations : int
        Number of invocations.
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
                "function time needs a memory of at least 1 MB, and no negative seconds or invocations: "
                f"not {self.memory_mb} MB, {self.seconds} s, {self.invocations} invocations"
            )


@dataclass(frozen=True, slots=True)
class MicrovmTime:
    """Billed time of Lambda MicroVMs of one size, whose processors are arm64.

    Attributes
    ----------
    memory_mb : int
        Baseline memory of each MicroVM in MB.
    seconds : float
        Duration in seconds, summed over the MicroVMs; the baseline is billed for all of it.
    burst_vcpu_s : float
        vCPU-seconds beyond the baseline, summed over the MicroVMs.
    launches : int
        Number of MicroVMs that are launched from the image's snapshot.
    snapshot_gb : float
        Size of that snapshot in GB, which each launch reads.
    """

    memory_mb: int
    seconds: float
    burst_vcpu_s: float
    launches: int
    snapshot_gb: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """The prediction of a run, made before it starts.

    Attributes
    ----------
    usage : Usage
        Predicted requests and bytes.
    functions : tuple of FunctionTime
        Predicted time of workers and coordinator; empty if time was not predicted.
    wall_s : float or None
        Predicted seconds from the call to the result; None if time was not predicted.
    live : tuple of float
        Predicted fraction of samples with any nonzero activation, after each layer but the last; empty if unknown.
    checkpoint_every : int
        Number of layers between the checkpoints of the run; 0 for none.
    checkpoint_bytes : int
        Bytes of all checkpoints.
    attempts : int
        Number of attempts: more than one if functions hand the run on at their time limit.
    """

    usage: Usage
    functions: tuple[FunctionTime, ...] = ()
    wall_s: float | None = None
    live: tuple[float, ...] = ()
    checkpoint_every: int = 0
    checkpoint_bytes: int = 0
    attempts: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return the prediction as plain JSON values."""
        return {
            "usage": self.usage.to_json(),
            "functions": [asdict(function) for function in self.functions],
            "wall_s": self.wall_s,
            "live": list(self.live),
            "checkpoint_every": self.checkpoint_every,
            "checkpoint_bytes": self.checkpoint_bytes,
            "attempts": self.attempts,
        }

    @classmethod
    def from_json(cls, value: object) -> Prediction:
        """Rebuild a prediction from `to_json`; raise FileFormatError naming the field that is missing or wrong."""
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
        return cls(
            usage,
            functions,
            fields.take_number_if("wall_s"),
            fields.take_numbers_if("live"),
            fields.take_count_if("checkpoint_every") or 0,
            fields.take_count_if("checkpoint_bytes") or 0,
            fields.take_count_if("attempts", 1) or 1,
        )
