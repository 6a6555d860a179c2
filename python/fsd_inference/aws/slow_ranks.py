"""The slow ranks of a running attempt, as its coordinator finds them: what they tell, and which are stragglers."""

from __future__ import annotations

from fsd_inference.aws.notes import Progress, progress_key, slow_folder
from fsd_inference.engine.spec import RunSpec
from fsd_inference.store.base import Store
from fsd_inference.stragglers import Lag, worst_of
from fsd_inference.threads import ThreadPool

_READERS = 16


class SlowRanks:
    """What slow ranks have told.

    Ranks that have told nothing are taken to be as much slower than foreseen as rank 0, which says so with its
    progress, or as fast as foreseen if rank 0 is slow itself.

    Parameters
    ----------
    store : Store
        The store of the run.
    spec : RunSpec
        The attempt.
    """

    def __init__(self, store: Store, spec: RunSpec) -> None:
        self._store = store
        self._spec = spec
        self._told: dict[int, Lag] = {}
        self._usual = 1.0
        self._named: set[int] = set()

    def read(self) -> None:
        """Read what the ranks tell, unless there are too many for any to be a straggler."""
        store, prefix, workers = self._store, self._spec.prefix, self._spec.settings.workers
        keys = [info.key for info in store.list(slow_folder(prefix))]
        if len(keys) > max(_READERS, workers // 2):
            return
        with ThreadPool(_READERS) as threads:
            found = [Lag.from_bytes(data or b"") for data in threads.map(store.get, keys)]
        self._told |= {lag.rank: lag for lag in found if lag is not None}
        progress = Progress.from_bytes(store.get(progress_key(prefix)) or b"")
        factor = None if progress is None or 0 in self._told else progress.factor
        self._usual = 1.0 if factor is None else factor

    @property
    def worst(self) -> Lag | None:
        """What the slowest rank is at, if it is a straggler."""
        return worst_of(self._told, self._spec.settings.workers, self._usual)

    def named(self) -> Lag | None:
        """Return what a straggler is at that was not returned before, the slowest first; None if there is none."""
        lag = worst_of(self._told, self._spec.settings.workers, self._usual, self._named)
        if lag is not None:
            self._named.add(lag.rank)
        return lag
