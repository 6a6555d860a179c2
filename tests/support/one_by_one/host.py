"""Model parameters of one host that runs all ranks as processes, together with an emulated AWS."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path


def _measured() -> dict[str, float]:
    values = json.loads((Path(__file__).parent / "services.json").read_text(encoding="utf-8"))
    return {name: entry["value"] for name, entry in values.items() if name.startswith(("server.", "poll."))}


@dataclass(frozen=True)
class Host:
    """A host and its emulator.

    Attributes
    ----------
    cores : int
        Number of processor cores.
    others : float
        Mean number of other programs that compete for a core.
    delay_s : float
        Latency added to every frame in seconds, half before and half after the service.
    values : mapping of str to float
        Processor seconds of the emulator by operation; see ``services.json``.
    """

    cores: int = 2
    others: float = 0.0
    delay_s: float = 0.0
    values: Mapping[str, float] = field(default_factory=_measured)

    def with_values(self, **values: float) -> Host:
        """Return a copy with changed values; write two underscores for the dot of a name."""
        return replace(self, values={**self.values, **{name.replace("__", "."): each for name, each in values.items()}})

    @classmethod
    def idle(cls, cores: int = 2, others: float = 0.0, delay_s: float = 0.0, **values: float) -> Host:
        """Return a host whose emulator takes no time, except for the given values."""
        nothing = {name: 1e30 if name.endswith("bytes_per_s") else 0.0 for name in _measured()}
        return cls(cores, others, delay_s, nothing).with_values(**values)
