"""The run specification that every rank of an attempt receives, and the keys of a run's objects in the store."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from fsd_inference.config import Clocks, RunSettings
from fsd_inference.errors import FileFormatError, SettingError
from fsd_inference.fields import load_json

SPEC_VERSION = 1


RUNS_FOLDER = "runs/"
"""Folder of the objects of all runs."""


def run_folder(run: str) -> str:
    """Return the folder of a run's objects, including those of all its attempts."""
    return f"{RUNS_FOLDER}{run}/"


def attempt_folder(run: str, attempt: int) -> str:
    """Return the folder of the objects of one attempt."""
    return f"{run_folder(run)}{attempt}/"


def plan_folder(plan: str) -> str:
    """Return the folder of a plan's manifest and shards, which all runs share; `plan` is the plan's digest."""
    return f"plans/{plan}/"


@dataclass(frozen=True, slots=True)
class RunSpec:
    """The specification of one attempt at one inference request.

    Attributes
    ----------
    run : str
        Run id, 32 hexadecimal digits.
    attempt : int
        0 for the first try.
    plan : str
        Digest of the exchange plan, 32 hexadecimal digits; also the name of the shards' folder.
    samples : int
        Samples in the batch.
    features : int
        Features of each sample.
    deadline : float
        When the run must have ended, seconds since the epoch.
    settings : RunSettings
        Workers, channel, output, timeouts and all other settings of the run.
    first_sample : int
        Number of the first sample in the batch of which the run computes a slice.
    hands_on : bool
        Whether the deadline is a time limit of functions that comes before the run's own: then the attempt ends with a
        `HandedOnError`, and another one goes on from the last checkpoint.
    resume_at : int
        The layer at which the attempt starts, from the checkpoint of the layers before it; 0 for the input.
    connection_s : tuple of float
        For each layer, the seconds that a connection and sample are foreseen to take a rank's kernels, by which it
        notices that it is slow; empty if it need not.
    """

    run: str
    attempt: int
    plan: str
    samples: int
    features: int
    deadline: float
    settings: RunSettings
    first_sample: int = 0
    hands_on: bool = False
    resume_at: int = 0
    connection_s: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("run", "plan"):
            value = getattr(self, name)
            if not isinstance(value, str) or len(value) != 32 or set(value) - set("0123456789abcdef"):
                raise SettingError(f"run specification: {name} must be 32 hexadecimal digits, not {value!r}")
        for name, least in (("attempt", 0), ("samples", 1), ("features", 1), ("first_sample", 0), ("resume_at", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise SettingError(f"run specification: {name} must be a whole number >= {least}, not {value!r}")
        if not isinstance(self.deadline, int | float) or not math.isfinite(self.deadline):
            raise SettingError(f"run specification: deadline must be a time in seconds, not {self.deadline!r}")
        if not all(0 <= seconds < math.inf for seconds in self.connection_s):
            raise SettingError("run specification: connection_s must be numbers of seconds")

    def ending_by(self, limit: float) -> RunSpec:
        """Return the attempt with a deadline that is not after the time limit of a function."""
        if limit >= self.deadline:
            return self
        return replace(self, deadline=limit, hands_on=self.settings.checkpoint_every > 0)

    @property
    def prefix(self) -> str:
        """Folder of this attempt's objects."""
        return attempt_folder(self.run, self.attempt)

    @property
    def input_key(self) -> str:
        """Key of the input object, shared by all attempts of the run."""
        return f"{run_folder(self.run)}input"

    def claim_key(self, rank: int) -> str:
        """Key of the object by which a rank claims its place."""
        return f"{self.prefix}claims/{rank:05d}"

    def result_key(self, rank: int) -> str:
        """Key of a rank's output rows (for rank 0, of the merged per-sample summary if one was requested)."""
        return f"{self.prefix}results/{rank:05d}"

    def report_key(self, rank: int) -> str:
        """Key of a rank's report, the last object it writes."""
        return f"{self.prefix}reports/{rank:05d}"

    @property
    def checkpoints_prefix(self) -> str:
        """Folder of the run's checkpoints, shared by all attempts."""
        return f"{run_folder(self.run)}checkpoints/"

    def checkpoint_key(self, layer: int, rank: int) -> str:
        """Key of a rank's checkpoint of all layers before `layer`."""
        return f"{self.checkpoints_prefix}{layer:05d}/{rank:05d}"

    @property
    def plan_prefix(self) -> str:
        """Folder of the plan's manifest and shards, which all runs share."""
        return plan_folder(self.plan)

    def to_json(self) -> str:
        """Return the specification as JSON text."""
        return json.dumps({"version": SPEC_VERSION, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> RunSpec:
        """Parse the output of `to_json`; raise `FileFormatError` for anything else."""
        try:
            value = load_json(text)
            if not isinstance(value, dict) or value.pop("version", None) != SPEC_VERSION:
                raise FileFormatError(
                    f"the run specification is not of version {SPEC_VERSION}; use one release throughout"
                )
            settings = _mapping(value.pop("settings"))
            clocks = Clocks(**{f.name: float(settings["clocks"][f.name]) for f in fields(Clocks)})
            foreseen = tuple(float(seconds) for seconds in value.pop("connection_s", ()))
            return cls(settings=RunSettings(**{**settings, "clocks": clocks}), connection_s=foreseen, **value)
        except (ValueError, KeyError, TypeError, SettingError) as error:
            raise FileFormatError(f"the run specification cannot be read: {error}") from error


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("settings must be an object")
    return value
