"""The metrics of an attempt: one object that its coordinator writes before the run's last status."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from fsd_inference.errors import FileFormatError
from fsd_inference.usage import Usage

_VERSION = 1


@dataclass(frozen=True, slots=True)
class RunMetrics:
    """Figures of one attempt.

    Attributes
    ----------
    memory_mb : int
        Size of the worker functions.
    coordinator : Usage
        What the coordinator asked of the services.
    coordinated : tuple of float
        When it began and ended, seconds since the epoch.
    ranks : list of dict
        The ranks' reports; of a failed attempt those that could still be written.
    """

    memory_mb: int
    coordinator: Usage
    coordinated: tuple[float, float]
    ranks: list[dict[str, Any]]

    @property
    def usage(self) -> Usage:
        """What coordinator and ranks asked of the services."""
        return sum((Usage.from_json(rank["usage"]) for rank in self.ranks), self.coordinator)

    @classmethod
    def from_bytes(cls, data: bytes, key: str) -> RunMetrics:
        """Read the metrics object at `key`; anything else is a `FileFormatError`."""
        try:
            value = json.loads(data)
            if value["version"] != _VERSION:
                raise FileFormatError(
                    f"{key}: metrics of version {value['version']}, and this program reads {_VERSION}"
                )
            coordinator = value["coordinator"]
            return cls(
                int(value["memory_mb"]),
                Usage.from_json(coordinator["usage"]),
                (float(coordinator["started"]), float(coordinator["ended"])),
                list(value["ranks"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileFormatError(f"{key} does not hold the metrics of a run") from error
