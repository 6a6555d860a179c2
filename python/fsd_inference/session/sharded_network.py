"""The shards of the network of a session: partitioned and uploaded, or found where they were pushed."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from fsd_inference.errors import FileFormatError, InputError, SettingError
from fsd_inference.network import Network
from fsd_inference.network.output_function import OutputFunction, checked_output
from fsd_inference.partitioning import ExchangePlan, Manifest, Partition, load_plan, partition, read_manifest
from fsd_inference.partitioning.manifest import MANIFEST_FILE
from fsd_inference.partitioning.methods import DEFAULT_METHOD
from fsd_inference.progress import Progress, task
from fsd_inference.session.pushing import pushed_plan, upload
from fsd_inference.store.base import Store
from fsd_inference.temporary import TemporaryFolder


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """Shards in the store that ranks read: their manifest, the owner of each neuron, and the exchange plan."""

    manifest: Manifest
    partition: Partition
    plan: ExchangePlan


class ShardedNetwork:
    """A network that is given whole or as a directory of its shards.

    Parameters
    ----------
    given : Network or path
        A network, the path of one, or a directory made by `fsd partition`.
    workers : int, optional
        Number of workers P; defaults to the number that the directory was partitioned for, otherwise to 1.
    method : str, optional
        Partitioner of a network that is not partitioned yet.

    Raises
    ------
    SettingError
        The directory was partitioned for another number of workers.
    """

    def __init__(self, given: Network | str | os.PathLike[str], workers: int | None, method: str | None) -> None:
        self._given = given
        self._method = method
        self.network: Network | None = None
        self.manifest: Manifest | None = None
        self.folder: Path | None = None  # the folder of shards
        self._own: TemporaryFolder | None = None  # owns `folder` if it was created here
        if isinstance(given, Network):
            self.network = given
        elif (Path(given) / MANIFEST_FILE).exists():
            self.folder = Path(given).absolute()  # the caller may change the working directory
            self.manifest = read_manifest(given)
            if workers not in {None, self.manifest.workers}:
                raise SettingError(
                    f"{given} was partitioned for {self.manifest.workers} workers, not {workers}; partition it again"
                )
            workers = self.manifest.workers
        else:
            self.network = Network.load(given)
        self.workers = 1 if workers is None else workers
        self.output = self._output()

    @property
    def features(self) -> int:
        """Number of features of a sample."""
        if self.manifest is not None:
            return self.manifest.features
        assert self.network is not None  # noqa: S101 - one of the two is there
        return self.network.widths[0]

    def cut(self, progress: Progress) -> None:
        """Partition the network into a folder of shards, unless there is one already."""
        if self.folder is None:
            assert self.network is not None  # noqa: S101 - there is a folder otherwise
            self._own = self._own or TemporaryFolder("shards")
            folder = self._own.path / "shards"
            method = self._method or DEFAULT_METHOD
            with task(progress, "partition"):
                partition(self.network, folder, workers=self.workers, method=method)
            self.folder = folder

    def shard_bytes(self) -> list[int]:
        """Return the size of each shard in bytes; call `cut` first."""
        assert self.folder is not None  # noqa: S101 - `cut` was called
        return [entry.size for entry in read_manifest(self.folder).shards]

    def upload(self, plans: Store, progress: Progress) -> StoredPlan:
        """Upload the folder of shards; call `cut` first."""
        assert self.folder is not None  # noqa: S101 - `cut` was called
        self.manifest = read_manifest(self.folder)
        owners, plan = load_plan(self.folder)
        upload(plans, self.folder, self.manifest, progress)
        return StoredPlan(self.manifest, owners, plan)

    def find(self, plans: Store, stack: Path) -> StoredPlan:
        """Return the plan of this network that was pushed to a stack with functions.

        Raises
        ------
        SettingError
            The network was not pushed, or was pushed with another partitioner.
        """
        wanted: Manifest | tuple[bytes, int]
        if self.folder is not None:
            wanted, method = self.manifest or read_manifest(self.folder), None
        else:
            assert self.network is not None  # noqa: S101 - there is a folder otherwise
            wanted, method = (self.network.digest, self.workers), None if self.workers == 1 else self._method
        found = StoredPlan(*pushed_plan(plans, wanted, self._push_command(stack), method))
        self.manifest = found.manifest
        return found

    def close(self) -> None:
        """Remove the folder of shards, if it was created here."""
        if self._own is not None:
            self._own.close()
            self.folder, self._own = None, None

    def _output(self) -> OutputFunction | None:
        """Return the output function of what was given; a plan on a stack is shared by networks with others."""
        if self.manifest is None:
            return None if self.network is None else self.network.output
        if self.manifest.output is None:
            return None
        try:
            return checked_output(OutputFunction.from_json(self.manifest.output), self.manifest.widths[-1])
        except InputError as error:
            raise FileFormatError(f"{self.folder}: the output function in {MANIFEST_FILE}: {error}") from error

    def _push_command(self, stack: Path) -> str:
        """Return the command that pushes this network."""
        method, workers = self._method, self.workers
        if isinstance(self._given, Network):
            more = "" if method is None else f", partition={method!r}"
            return f"fsd_inference.push(network, stack={str(stack)!r}, workers={workers}{more})"
        command = ["fsd", "push", str(self._given), "--stack", str(stack)]
        if self.folder is None:
            command += ["--workers", str(workers)]
            command += [] if method is None else ["--partition", method]
        return shlex.join(command)
