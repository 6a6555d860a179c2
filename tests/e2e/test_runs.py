"""Whole runs over real processes: every channel returns the serial outputs, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.aws.local import temporary_stack
from fsd_inference.aws.provision import StackSettings
from fsd_inference.aws.stack import save_stack
from fsd_inference.errors import NumericError
from fsd_inference.kernels import simd_paths
from fsd_inference.network import read_categories
from tests.support.runs import same, serial, session
from tests.support.shared import graph_challenge_inputs, shared

CHANNELS = ("local", "queue", "object")
Uneven = tuple[fsd.Network, sparse.csr_array, sparse.csr_array]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("stack") / "stack.json"
    with temporary_stack(StackSettings(name="fsd-test", lanes=2, ranks=8, run_buckets=2, purge_settle_s=0.0)) as made:
        save_stack(made, path)
        yield path


@pytest.fixture(scope="module")
def uneven() -> Uneven:
    """A network of three widths with biases of both signs, a batch, and its serial answer."""
    network = fsd.random_network([300, 200, 300, 150, 200, 300, 150], connections=20, seed=3)
    assert any((layer.bias > 0).any() and (layer.bias < 0).any() for layer in network)
    x = sparse.random_array((500, 300), density=0.3, rng=np.random.default_rng(1), dtype=np.float32).tocsr()
    return network, x, serial(network, x)


@pytest.mark.emulator
@pytest.mark.parametrize("channel", CHANNELS)
def test_uneven_layers_and_three_micro_batches(channel: str, stack: Path, uneven: Uneven) -> None:
    network, x, expected = uneven
    with fsd.Session(network, verify=True) as alone:
        digests = alone.infer(x).report.digests
    with session(
        network, channel, stack, workers=5, partition="graph", micro_batches=3, branching=2, threads=2, verify=True
    ) as distributed:
        answer = distributed.infer(x)
        assert same(answer.outputs, expected)
        # The session answers again: nothing of the first run is in the way.
        assert same(distributed.infer(x[:7]).outputs, serial(network, x[:7]))
    ranks, found = answer.report.ranks, answer.report.digests
    assert found is not None
    assert replace(found, plan=None) == digests
    assert {rank.rank: rank.starter for rank in ranks} == {0: None, 1: 0, 2: 0, 3: 1, 4: 1}
    assert len({rank.process for rank in ranks}) == 5


@pytest.mark.emulator
@pytest.mark.parametrize("channel", CHANNELS)
def test_argmax(channel: str, stack: Path, uneven: Uneven) -> None:
    network, x, expected = uneven
    with session(network, channel, stack, workers=4, partition="block", output="argmax") as distributed:
        answer = distributed.infer(x)
    assert answer.argmax is not None
    assert answer.argmax.tolist() == expected.toarray().argmax(axis=1).tolist()


@pytest.mark.parametrize("path", ["portable", "avx2", "avx512", "neon"])
def test_ranks_on_every_kernel_path(path: str, uneven: Uneven, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever instructions the ranks use: the answer is that of this process, which uses the best it has."""
    if path not in simd_paths():
        pytest.skip(f"this processor does not support the kernel path {path}, so ranks did NOT run on it")
    network, x, expected = uneven
    monkeypatch.setenv("FSD_KERNEL", path)  # for the processes of the ranks
    with session(network, "local", workers=3, partition="block", micro_batches=2) as distributed:
        answer = distributed.infer(x)
    assert {rank.simd for rank in answer.report.ranks} == {path}
    assert same(answer.outputs, expected)


def test_more_workers_than_neurons() -> None:
    network = fsd.random_network([6, 4, 3, 2], connections=2, seed=1)
    x = np.random.default_rng(0).random((5, 6), np.float32)
    with session(network, "local", workers=7, partition="block", branching=1) as distributed:
        assert same(distributed.infer(x).outputs, serial(network, sparse.csr_array(x)))


def test_official_categories_serial() -> None:
    x = graph_challenge_inputs(1024)
    expected = read_categories(shared("graphchallenge/neuron1024-l120-categories.tsv"))
    with fsd.Session(fsd.graph_challenge(1024, 120), tuning=fsd.Tuning(threads=2)) as alone:
        answer = alone.infer(x)
    assert (answer.alive() + 1).tolist() == list(expected)


@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.long)])
def test_official_categories_over_eight_workers(every: int, tmp_path: Path) -> None:
    fsd.partition(fsd.graph_challenge(1024, 120), tmp_path / "shards", workers=8, method="graph")
    x = graph_challenge_inputs(1024)
    expected = read_categories(shared("graphchallenge/neuron1024-l120-categories.tsv"))
    with session(tmp_path / "shards", "local") as distributed:
        answer = distributed.infer(x[::every])
    assert (answer.alive() * every + 1).tolist() == [each for each in expected if (each - 1) % every == 0]


@pytest.mark.emulator
@pytest.mark.parametrize(("layers", "workers"), [(24, 4), pytest.param(120, 8, marks=pytest.mark.long)])
@pytest.mark.parametrize("channel", ["queue", "object"])
def test_graph_challenge_over_the_emulator(channel: str, layers: int, workers: int, stack: Path) -> None:
    network, x = fsd.graph_challenge(1024, layers), graph_challenge_inputs(1024)[:2000]
    with session(network, channel, stack, workers=workers) as distributed:
        answer = distributed.infer(x)
    assert same(answer.outputs, serial(network, x))


def test_an_overflow_names_layer_and_neuron() -> None:
    weights = sparse.csr_array(np.eye(4, dtype=np.float32) * np.float32(1e30))
    layers = [fsd.Layer(weights, np.zeros(1, np.float32), fsd.Activation("relu")) for _ in range(3)]
    x = np.zeros((2, 4), np.float32)
    x[1, 2] = 1.0
    with (
        session(fsd.Network(layers), "local", workers=2, partition="block") as distributed,
        pytest.raises(NumericError, match="layer 1, neuron 2") as caught,
    ):
        distributed.infer(x)
    assert not caught.value.retryable


def test_the_event_log_of_a_real_run_shows_overlap() -> None:
    """Boundary rows are handed over before the other rows of their step are computed."""
    network = fsd.random_network([64] * 7, connections=2, seed=4)
    x = np.random.default_rng(0).random((200, 64), np.float32)
    with session(network, "local", workers=2, partition="block", micro_batches=2) as distributed:
        report = distributed.infer(x).report
    overlapped = 0
    for rank in report.ranks:
        events = {(name, layer, m): (start, end) for name, layer, m, start, end in rank.events}
        for (name, layer, m), (_, end) in events.items():
            if name == "interior":
                assert events["boundary", layer, m][1] <= events["send", layer, m][0] <= end
                overlapped += 1
    assert overlapped > 0
