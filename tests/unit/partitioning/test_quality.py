"""Communication saved by the partitioners, on the benchmark's networks and on an unstructured one."""

from __future__ import annotations

import pytest

from fsd_inference.network import Network, graph_challenge, random_network
from fsd_inference.partitioning import exchange_plan, partition_network, volumes


def row_sends(network: Network, workers: int, method: str) -> int:
    partition = partition_network(network, workers, method)
    counted = volumes(network, partition, exchange_plan(network, partition), 0)
    assert counted.imbalance <= 1.03
    return counted.row_sends


@pytest.mark.parametrize(("layers", "most"), [(24, 19_000), pytest.param(120, 124_000, marks=pytest.mark.long)])
def test_hypergraph_sends_little_on_the_benchmark_network(layers: int, most: int) -> None:
    """1024 wide, for 8 workers: about 1,000 rows an exchange at most; block and random send about 7,100."""
    assert row_sends(graph_challenge(1024, layers), 8, "hypergraph") <= most


@pytest.mark.parametrize("workers", [5, 8])
def test_better_methods_send_less_where_there_is_structure(workers: int) -> None:
    network = graph_challenge(1024, 12)
    sends = {method: row_sends(network, workers, method) for method in ("block", "random", "graph", "hypergraph")}
    assert sends["hypergraph"] <= sends["graph"] < min(sends["block"], sends["random"]) / 4


def test_better_methods_are_not_worse_where_there_is_none() -> None:
    network = random_network([256] * 4, 16, seed=1)
    sends = {method: row_sends(network, 6, method) for method in ("block", "random", "graph", "hypergraph")}
    assert max(sends["graph"], sends["hypergraph"]) <= min(sends["block"], sends["random"])
