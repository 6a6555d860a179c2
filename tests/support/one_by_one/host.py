"""A host that runs all ranks as processes, and an emulated AWS."""

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
    others : float
        Other programs that want a core, on average.
    delay_s : float
        Latency added to every frame, half on each side of the service.
    values : mapping of str to float
        Processor seconds of the emulator: see ``services.json``.
    """

    cores: int = 2
    others: float = 0.0
    delay_s: float = 0.0
    values: Mapping[str, float] = field(default_factory=_measured)

    def with_values(self, **values: float) -> Host:
        """Return the host with other values; dots as two underscores."""
        return replace(self, values={**self.values, **{name.replace("__", "."): each for name, each in values.items()}})

    @classmethod
    def idle(cls, cores: int = 2, others: float = 0.0, delay_s: float = 0.0, **values: float) -> Host:
        """Return a host whose emulator takes no time but what is given."""
        nothing = {name: 1e30 if name.endswith("bytes_per_s") else 0.0 for name in _measured()}
        return cls(cores, others, delay_s, nothing).with_values(**values)
