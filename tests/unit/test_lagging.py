"""Received frames that wait for a rank that lags: how many there are, and how much memory and disk they take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fsd_inference.network import Layer, Network
from fsd_inference.partitioning import Partition
from tests.support.schedules import Case, check_answer, random_cut
from tests.support.virtual import Faults, Spill, VirtualRun

WIDTH, LAYERS, SAMPLES = 24, 9, 12
MOST = 1000  # bytes of early frames in memory


def layers(mask: np.ndarray) -> Network:
    """Return layers of random weights where the mask is set, of which no output is zero."""
    rng = np.random.default_rng(7)
    made = [mask * rng.uniform(0.01, 0.1, mask.shape) for _ in range(LAYERS)]
    return Network([Layer(weights.astype(np.float32), np.float32(0.1)) for weights in made])


def played(network: Network, partition: Partition, micro_batches: int, folder: Path) -> VirtualRun:
    """Run a network with a rank 0 that takes ten times as long as any other."""
    x = np.random.default_rng(8).random((SAMPLES, WIDTH)).astype(np.float32)
    case = Case(network, partition, x, micro_batches, 2, True, "rows", 200, seed=9)
    run = case.play(faults=Faults(lags=(0, 10.0)), spill=Spill(MOST, folder))
    check_answer(case, run)
    assert not [file for rank in range(partition.workers) for file in (folder / str(rank)).iterdir()]
    return run


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_ranks_that_need_each_other_are_two_steps_apart_at_most(micro_batches: int, tmp_path: Path) -> None:
    network = layers(np.ones((WIDTH, WIDTH)))
    run = played(network, random_cut(np.random.default_rng(6), network, 4), micro_batches, tmp_path)
    assert max(rank.farthest for rank in run.ranks) == 2
    everything = sum(map(len, run.sent))
    for rank in run.ranks:
        assert rank.most_early <= MOST
        assert rank.most_early + rank.most_spilled < 3 / LAYERS * everything


def test_what_a_rank_sends_that_waits_for_none_is_spilled_where_it_arrives(tmp_path: Path) -> None:
    # Rank 1 has the first half of all neurons, which read each other only.
    half = WIDTH // 2
    mask = np.ones((WIDTH, WIDTH))
    mask[:half, half:] = 0
    owners = np.repeat([1, 0], half).astype(np.int32)
    run = played(layers(mask), Partition(2, (owners,) * LAYERS), 2, tmp_path)
    slow, fast = run.ranks
    assert fast.finished_at < slow.finished_at / 5
    assert (fast.most_early, fast.most_spilled) == (0, 0)
    assert slow.farthest > LAYERS // 2
    assert MOST - 200 < slow.most_early <= MOST
    assert MOST < slow.most_spilled < sum(map(len, run.sent))
