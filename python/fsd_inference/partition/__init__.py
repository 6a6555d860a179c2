"""Partitions of a network, the exchange plan that follows, and the shards that ranks load."""

import sys
from types import ModuleType

from fsd_inference.partition.cut import cut
from fsd_inference.partition.exchange import exchange_plan, volumes
from fsd_inference.partition.manifest import MANIFEST_FILE, FileEntry, Manifest
from fsd_inference.partition.methods import METHODS, partition_network
from fsd_inference.partition.plan import Edge, ExchangePlan, Partition, RankPlan, plan_digest, rank_plans
from fsd_inference.partition.shard import RankShard, ShardPart, layer_parts
from fsd_inference.partition.shards import load_plan, load_shard, read_manifest, read_plan, read_shard, write_shards

__all__ = [
    "MANIFEST_FILE",
    "METHODS",
    "Edge",
    "ExchangePlan",
    "FileEntry",
    "Manifest",
    "Partition",
    "RankPlan",
    "RankShard",
    "ShardPart",
    "cut",
    "exchange_plan",
    "layer_parts",
    "load_plan",
    "load_shard",
    "partition_network",
    "plan_digest",
    "rank_plans",
    "read_manifest",
    "read_plan",
    "read_shard",
    "volumes",
    "write_shards",
]


class _CallablePackage(ModuleType):
    """Lets users write ``fsd.partition(network, ...)`` although the room has the same name."""

    __call__ = staticmethod(cut)


sys.modules[__name__].__class__ = _CallablePackage
