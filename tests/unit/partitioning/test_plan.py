"""Partitions and exchange plans: compared with brute force, balance, merged edges, volumes and digests."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsd_inference.errors import InputError, SettingError
from fsd_inference.network import Network
from fsd_inference.partitioning import (
    METHODS,
    Edge,
    ExchangePlan,
    Partition,
    exchange_plan,
    partition_network,
    plan_digest,
    rank_plans,
    share_rows,
    volumes,
)

from .networks import cut_networks, make_network, merged, networks


def brute_force(network: Network, partition: Partition) -> dict[tuple[int, int, int], list[int]]:
    """Return the rows by (exchange, source, target), looking at every single weight."""
    sends: dict[tuple[int, int, int], set[int]] = {}
    for k in range(1, len(network)):
        for row, column in zip(*network.layer(k).weights.nonzero(), strict=True):
            source, target = int(partition.owners[k - 1][column]), int(partition.owners[k][row])
            if source != target:
                sends.setdefault((k - 1, source, target), set()).add(int(column))
    return {key: sorted(rows) for key, rows in sends.items()}


@given(cut_networks())
def test_plan_is_what_every_single_weight_asks_for(cut: tuple[Network, Partition]) -> None:
    network, partition = cut
    plan = exchange_plan(network, partition)
    found = {
        (k, edge.source, *edge.targets): edge.rows.tolist() for k, edges in enumerate(plan.exchanges) for edge in edges
    }
    assert found == brute_force(network, partition)
    assert all(list(edges) == sorted(edges, key=lambda e: (e.source, e.targets)) for edges in plan.exchanges)
    assert all(edge.rows.dtype == np.int32 for edges in plan.exchanges for edge in edges)


@given(cut_networks(), st.sampled_from([0.0, 0.25, 1.0, 100.0]))
def test_shared_rows_still_bring_everyone_what_it_needs(cut: tuple[Network, Partition], slack: float) -> None:
    network, partition = cut
    plan = exchange_plan(network, partition)
    shared = share_rows(plan, slack)
    needs = brute_force(network, partition)
    brought: dict[tuple[int, int, int], list[int]] = {}
    for k, edges in enumerate(shared.exchanges):
        assert list(edges) == sorted(edges, key=lambda e: (e.source, e.targets))
        for edge in edges:
            assert edge.rows.tolist() == sorted(set(edge.rows.tolist()))
            needed = sum(len(needs[k, edge.source, target]) for target in edge.targets)
            assert edge.rows.size * len(edge.targets) <= (1 + slack) * needed
            brought.update({(k, edge.source, target): edge.rows.tolist() for target in edge.targets})
    assert brought.keys() == needs.keys()  # one edge for each pair, and no pair without need
    assert all(set(needs[key]) <= set(rows) for key, rows in brought.items())
    assert sum(e.rows.size for x in shared.exchanges for e in x) <= sum(e.rows.size for x in plan.exchanges for e in x)


def test_rows_that_all_want_are_sent_once() -> None:
    network = make_network([8, 9, 9], seed=3, density=1.0)
    partition = partition_network(network, 3, "block")
    (exchange,) = share_rows(exchange_plan(network, partition)).exchanges
    assert [(e.source, e.targets, e.rows.tolist()) for e in exchange] == [
        (0, (1, 2), [0, 1, 2]),
        (1, (0, 2), [3, 4, 5]),
        (2, (0, 1), [6, 7, 8]),
    ]


@given(cut_networks(), st.booleans())
def test_volumes_count_the_plan(cut: tuple[Network, Partition], merge: bool) -> None:
    network, partition = cut
    plan = exchange_plan(network, partition)
    plan = merged(plan) if merge else plan
    counted = volumes(network, partition, plan, 1.5)
    sends = [(k, e.source, t, e.rows.size) for k, edges in enumerate(plan.exchanges) for e in edges for t in e.targets]
    assert counted.seconds == 1.5
    assert counted.row_sends == sum(n for *_, n in sends)
    for k in range(len(network) - 1):
        by_source = [sum(n for j, s, _, n in sends if (j, s) == (k, r)) for r in range(plan.workers)]
        by_target = [sum(n for j, _, t, n in sends if (j, t) == (k, r)) for r in range(plan.workers)]
        assert (counted.largest_sender[k], counted.largest_receiver[k]) == (max(by_source), max(by_target))
    loads = [
        np.bincount(owners, np.diff(layer.weights.indptr), plan.workers)
        for layer, owners in zip(network, partition.owners, strict=True)
    ]
    assert counted.imbalance == pytest.approx(max(x.max() / x.mean() if x.any() else 1 for x in loads))


@given(cut_networks(), st.booleans())
def test_rank_plans_agree_with_each_other(cut: tuple[Network, Partition], merge: bool) -> None:
    network, partition = cut
    plan = exchange_plan(network, partition)
    plan = merged(plan) if merge else plan
    ranks = rank_plans(partition, plan)
    for k in range(len(network)):
        sent = {
            (rank.rank, number, target)
            for rank in ranks
            for number, targets in enumerate(rank.sends[k])
            for target in targets
        }
        following = [(rank.rank, rank.receives[k + 1] if k + 1 < len(network) else ()) for rank in ranks]
        received = {(*edge, rank) for rank, edges in following for edge in edges}
        assert sent == received
        for rank in ranks:
            assert rank.boundary[k] + rank.interior[k] == partition.rows(k, rank.rank).size
            assert (rank.boundary[k] == 0) == (rank.sends[k] == ())


@given(networks(), st.integers(1, 30), st.sampled_from(METHODS), st.integers(0, 3))
def test_partitions_are_balanced_and_repeatable(network: Network, workers: int, method: str, seed: int) -> None:
    partition = partition_network(network, workers, method, seed)
    assert tuple(owners.size for owners in partition.owners) == network.widths[1:]
    for layer, owners in zip(network, partition.owners, strict=True):
        rows = np.diff(layer.weights.indptr)
        even = rows.sum() / workers
        assert np.bincount(owners, rows, workers).max() <= max(1.03 * even, even + rows.max()) + 1e-9
    again = partition_network(network, workers, method, seed)
    assert all((a == b).all() for a, b in zip(partition.owners, again.owners, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_layers_without_connections_are_spread_too(method: str) -> None:
    partition = partition_network(make_network([5, 12, 12], seed=1, density=0), 4, method)
    assert [np.bincount(owners).tolist() for owners in partition.owners] == [[3, 3, 3, 3]] * 2


def test_nonsense_is_refused() -> None:
    network = make_network([3, 4, 5], seed=1)
    with pytest.raises(SettingError, match="method"):
        partition_network(network, 2, "best")
    with pytest.raises(SettingError, match="workers"):
        partition_network(network, 0)
    with pytest.raises(SettingError, match="seed"):
        partition_network(network, 2, "random", -1)
    with pytest.raises(SettingError, match="seed"):
        partition_network(network, 2, "graph", 2**30)
    with pytest.raises(SettingError, match="workers"):
        Partition(0, ())
    with pytest.raises(InputError, match="layer 0"):
        Partition(2, (np.array([0, 2], np.int32),))
    with pytest.raises(InputError, match="another network"):
        exchange_plan(network, Partition(2, (np.zeros(4, np.int32),)))


def test_digest_changes_with_everything_that_decides_frames() -> None:
    def digest(name: bytes, workers: int, owners: list[int], edges: list[Edge]) -> bytes:
        layers = (np.array(owners, np.int32), np.array([0, 1], np.int32))
        return plan_digest(name, Partition(workers, layers), ExchangePlan(workers, (tuple(edges),)))

    edge = Edge(0, (1,), np.array([0], np.int32))
    all_rows = Edge(0, (1,), np.array([0, 1], np.int32))
    digests = [
        digest(b"a", 2, [0, 0], [edge]),
        digest(b"b", 2, [0, 0], [edge]),
        digest(b"a", 3, [0, 0], [edge]),
        digest(b"a", 2, [0, 1], [edge]),
        digest(b"a", 2, [0, 0], [all_rows]),
        digest(b"a", 2, [0, 0], []),
    ]
    assert len(set(digests)) == len(digests)
    assert {len(d) for d in digests} == {16}
