"""The metrics object of an attempt, which its coordinator writes before the run's final status."""

from __future__ import annotations

from dataclasses import dataclass

from fsd_inference.errors import FileFormatError
from fsd_inference.fields import Fields, load_json
from fsd_inference.rank_report import RankReport
from fsd_inference.usage import Usage

_VERSION = 1


@dataclass(frozen=True, slots=True)
class RunMetrics:
    """Metrics of one attempt.

    Attributes
    ----------
    memory_mb : int
        Memory of the worker functions in MB.
    coordinator : Usage
        Requests and bytes of the coordinator.
    coordinated : tuple of float
        Start and end of the coordinator, in seconds since the epoch.
    coordinator_init_s : float
        Seconds of the coordinator's init phase; 0 if its environment was warm.
    ranks : list of RankReport
        The ranks' reports; in a failed attempt some may be missing.
    """

    memory_mb: int
    coordinator: Usage
    coordinated: tuple[float, float]
    coordinator_init_s: float
    ranks: list[RankReport]

    @property
    def usage(self) -> Usage:
        """Total usage of the coordinator and all ranks."""
        return sum((rank.usage for rank in self.ranks), self.coordinator)

    @classmethod
    def from_bytes(cls, data: bytes, key: str) -> RunMetrics:
        """Parse the metrics object at `key`; raise `FileFormatError` if it is invalid."""
        try:
            return cls._from_json(load_json(data))
        except ValueError as error:
            raise FileFormatError(f"{key} does not hold the metrics of a run: it is not JSON") from error
        except FileFormatError as error:
            raise FileFormatError(f"{key} does not hold the metrics of a run: {error}") from error

    @classmethod
    def _from_json(cls, value: object) -> RunMetrics:
        fields = Fields(value, "", "the object")
        if (version := fields.take("version", int)) != _VERSION:
            raise FileFormatError(f"metrics of version {version} are not known; this release reads {_VERSION}")
        coordinator = fields.take_fields("coordinator")
        return cls(
            fields.take_count("memory_mb", least=1),
            Usage.from_fields(coordinator.take_fields("usage")),
            (coordinator.take_time("started"), coordinator.take_time("ended")),
            coordinator.take_number_or("init_s", 0.0),
            [RankReport.from_json(each, f"ranks[{i}].") for i, each in enumerate(fields.take("ranks", list))],
        )
