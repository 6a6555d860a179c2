"""What the process of a rank is told: the run directory's ``launch.json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import FileFormatError

LAUNCH_FILE = "launch.json"


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """All that the process of a rank is told.

    Attributes
    ----------
    spec : RunSpec
        The attempt.
    channel : str
        "local", "queue" or "object".
    store : str or None
        URL of the store that holds plans, inputs and results, for "local".
    stack : str or None
        Path of the ``stack.json`` to use, for the channels over AWS.
    lane : int or None
        The lane that the attempt holds, for "queue".
    delay_s : float
        Latency added on the way of every frame, for emulators, which have none.
    """

    spec: RunSpec
    channel: str
    store: str | None = None
    stack: str | None = None
    lane: int | None = None
    delay_s: float = 0.0

    def write(self, directory: Path) -> None:
        """Write ``launch.json``."""
        value: dict[str, Any] = {**asdict(self), "spec": self.spec.to_json()}
        (directory / LAUNCH_FILE).write_text(json.dumps(value))

    @classmethod
    def read(cls, directory: Path) -> LaunchSpec:
        """Read ``launch.json``; anything else is a `FileFormatError`."""
        path = directory / LAUNCH_FILE
        try:
            value = json.loads(path.read_text())
            return cls(**{**value, "spec": RunSpec.from_json(value["spec"])})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FileFormatError(f"{path}: cannot be read as what a rank's process is told: {error}") from error
