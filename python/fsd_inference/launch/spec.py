"""The configuration file of local ranks: ``launch.json`` in the run directory."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import FileFormatError
from fsd_inference.fields import load_json

LAUNCH_FILE = "launch.json"


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """The configuration that all rank processes of an attempt read.

    Attributes
    ----------
    spec : RunSpec
        The attempt to carry out.
    channel : str
        "local", "queue" or "object".
    store : str or None
        URL of the store of plans, inputs and results, for "local".
    stack : str or None
        Path of the ``stack.json`` to use, for the channels over AWS.
    lane : int or None
        The lane that the attempt holds, for "queue".
    delay_s : float
        Latency added to every frame, in seconds: emulators have none of their own.
    """

    spec: RunSpec
    channel: str
    store: str | None = None
    stack: str | None = None
    lane: int | None = None
    delay_s: float = 0.0

    def write(self, directory: Path) -> None:
        """Write ``launch.json`` into `directory`."""
        value: dict[str, Any] = {**asdict(self), "spec": self.spec.to_json()}
        (directory / LAUNCH_FILE).write_text(json.dumps(value))

    @classmethod
    def read(cls, directory: Path) -> LaunchSpec:
        """Read ``launch.json`` from `directory`; raise `FileFormatError` if it is missing or invalid."""
        path = directory / LAUNCH_FILE
        try:
            value = load_json(path.read_text())
            return cls(**{**value, "spec": RunSpec.from_json(value["spec"])})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FileFormatError(f"{path} is not a valid configuration of a rank's process: {error}") from error
