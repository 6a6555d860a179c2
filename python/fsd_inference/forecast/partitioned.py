"""A partitioned network with the work of each rank, computed in memory or read from shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse

from fsd_inference.errors import SettingError
from fsd_inference.forecast.payloads import Payloads, dense_payloads
from fsd_inference.forecast.sampling import sample_payloads
from fsd_inference.forecast.work import Work, rank_work
from fsd_inference.network import Network
from fsd_inference.partitioning import MANIFEST_FILE, load_plan, load_shard, read_manifest
from fsd_inference.partitioning.exchange import exchange_plan
from fsd_inference.partitioning.methods import partition_network
from fsd_inference.partitioning.plan import ExchangePlan, Partition
from fsd_inference.partitioning.sharing import share_rows


@dataclass(frozen=True)
class Partitioned:
    """A network partitioned for some number of workers.

    Attributes
    ----------
    partition : Partition
        The rank that owns each neuron.
    plan : ExchangePlan
        The rows that ranks exchange.
    work : Work
        The connections and shard bytes of each rank.
    features : int
        Number of features of a sample.
    network : Network or None
        None if only its shards are available.
    """

    partition: Partition
    plan: ExchangePlan
    work: Work
    features: int
    network: Network | None

    @classmethod
    def cut(cls, network: Network, workers: int, method: str, seed: int = 0) -> Partitioned:
        """Partition a network as a session does, without writing shards."""
        partition = partition_network(network, workers, method, seed)
        plan = share_rows(exchange_plan(network, partition))
        return cls(partition, plan, rank_work(network, partition), network.widths[0], network)

    @classmethod
    def load(cls, path: Path, workers: int | None, method: str | None) -> Partitioned:
        """Partition the network in `path`, or read the shards if `path` holds shards.

        Raises
        ------
        SettingError
            The shards are for another number of workers, or a partitioning method is given for shards.
        """
        if not (path / MANIFEST_FILE).is_file():
            return cls.cut(Network.load(path), workers or 1, method or "graph")
        manifest = read_manifest(path)
        if workers not in {None, manifest.workers} or method is not None:
            raise SettingError(
                f"{path} holds shards for {manifest.workers} workers, partitioned by {manifest.method}; "
                "leave out --workers and --partition, or pass the network instead"
            )
        partition, plan = load_plan(path)
        shards = (load_shard(path, rank) for rank in range(manifest.workers))
        columns = [[part.indices.size for part in shard.parts] for shard in shards]
        sizes = np.array([entry.size for entry in manifest.shards], np.int64)
        work = Work(np.array(columns, np.int64).T, manifest.widths[:-1], sizes)
        return cls(partition, plan, work, manifest.features, None)

    def payloads(self, x: sparse.csr_array | None, samples: int, micro_batches: int, live: float = 1.0) -> Payloads:
        """Return the payload sizes: sampled if inputs and network are available, else those of dense activations."""
        if x is not None and self.network is not None:
            (found,) = sample_payloads(self.network, [self.plan], x, samples=samples, micro_batches=micro_batches)
            return found
        return dense_payloads(
            self.plan, samples=samples, micro_batches=micro_batches, features=self.features, live=live
        )
