"""Refusal of runs on this machine that take more memory than it has left."""

from __future__ import annotations

from collections.abc import Sequence

from fsd_inference.engine.free_memory import machine_bytes, process_bytes, process_limit
from fsd_inference.engine.streaming import layer_bytes
from fsd_inference.errors import ResourceLimitError
from fsd_inference.forecast.memory import least_bytes
from fsd_inference.network import Network


def check_network(network: Network) -> None:
    """Check that a stored network can be loaded into this process.

    Raises
    ------
    ResourceLimitError
        Its layers take more memory than is left: all of them, and while one is read its file's content and a copy.
    """
    layers, left = layer_bytes(network), process_bytes()
    needed = sum(layers) + 2 * max(layers)
    if needed > left:
        raise ResourceLimitError(
            f"the network takes {_mb(needed)} of memory, and {_mb(left)} are left; give a memory limit, so that layers "
            "are read as they are used, or run it on the functions of a stack"
        )


def check_ranks(shards: Sequence[int]) -> None:
    """Check that the processes of all ranks fit into this machine; `shards` are the sizes of their shards in bytes.

    Raises
    ------
    ResourceLimitError
        Even if all activations were zero, they would take more memory than is left.
    """
    # Processes share most of what they take without a shard.
    together = sum(least_bytes(shard, base_bytes=0) for shard in shards)
    for needed, left, which in (
        (together, machine_bytes(), f"{len(shards)} workers take"),
        (least_bytes(max(shards)), process_limit(), "the largest worker takes"),
    ):
        if needed > left:
            raise ResourceLimitError(
                f"{which} at least {_mb(needed)} of memory, and {_mb(left)} are left; use a machine with more, or the "
                "functions of a stack"
            )


def _mb(count: float) -> str:
    return f"{max(count, 0) / 2**20:,.0f} MB"
