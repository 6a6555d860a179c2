"""Partitioning of networks: partitioners, exchange plans, and the shards that ranks load.

The names below are imported lazily, because a worker needs only the plan and the shard files.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fsd_inference.partitioning.cutting import partition
    from fsd_inference.partitioning.exchange import exchange_plan, volumes
    from fsd_inference.partitioning.manifest import MANIFEST_FILE, FileEntry, Manifest
    from fsd_inference.partitioning.methods import METHODS, partition_network
    from fsd_inference.partitioning.plan import Edge, ExchangePlan, Partition, RankPlan, plan_digest, rank_plans
    from fsd_inference.partitioning.reading import load_plan, load_shard, read_manifest, read_plan, read_shard
    from fsd_inference.partitioning.shard import RankShard, ShardPart, layer_parts
    from fsd_inference.partitioning.shards import write_shards
    from fsd_inference.partitioning.sharing import share_rows

_FILES = {
    "MANIFEST_FILE": "manifest",
    "METHODS": "methods",
    "Edge": "plan",
    "ExchangePlan": "plan",
    "FileEntry": "manifest",
    "Manifest": "manifest",
    "Partition": "plan",
    "RankPlan": "plan",
    "RankShard": "shard",
    "ShardPart": "shard",
    "exchange_plan": "exchange",
    "layer_parts": "shard",
    "load_plan": "reading",
    "load_shard": "reading",
    "partition": "cutting",
    "partition_network": "methods",
    "plan_digest": "plan",
    "rank_plans": "plan",
    "read_manifest": "reading",
    "read_plan": "reading",
    "read_shard": "reading",
    "share_rows": "sharing",
    "volumes": "exchange",
    "write_shards": "shards",
}

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
    "exchange_plan",
    "layer_parts",
    "load_plan",
    "load_shard",
    "partition",
    "partition_network",
    "plan_digest",
    "rank_plans",
    "read_manifest",
    "read_plan",
    "read_shard",
    "share_rows",
    "volumes",
    "write_shards",
]


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FILES[name]}"), name)
