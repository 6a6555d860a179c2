"""Partitions of a network, the exchange plan that follows, and the shards that ranks load.

The names below are imported when they are first used: a worker needs the plan and the shard files alone.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fsd_inference.partition.cutting import cut
    from fsd_inference.partition.exchange import exchange_plan, volumes
    from fsd_inference.partition.manifest import MANIFEST_FILE, FileEntry, Manifest
    from fsd_inference.partition.methods import METHODS, partition_network
    from fsd_inference.partition.plan import Edge, ExchangePlan, Partition, RankPlan, plan_digest, rank_plans
    from fsd_inference.partition.reading import load_plan, load_shard, read_manifest, read_plan, read_shard
    from fsd_inference.partition.shard import RankShard, ShardPart, layer_parts
    from fsd_inference.partition.shards import write_shards
    from fsd_inference.partition.sharing import share_rows

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
    "cut": "cutting",
    "exchange_plan": "exchange",
    "layer_parts": "shard",
    "load_plan": "reading",
    "load_shard": "reading",
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
    "share_rows",
    "volumes",
    "write_shards",
]


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FILES[name]}"), name)


class _CallablePackage(ModuleType):
    """Lets users write ``fsd.partition(network, ...)`` although the room has the same name."""

    def __call__(self, *args: Any, **settings: Any) -> Manifest:
        """Partition a network; see `fsd_inference.partition.cut`."""
        return import_module(f"{__name__}.cutting").cut(*args, **settings)  # type: ignore[no-any-return]


sys.modules[__name__].__class__ = _CallablePackage
