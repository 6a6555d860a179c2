"""Generated networks: the Graph Challenge's exactly, and random ones whose activations do not die out."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fsd_inference.errors import InputError
from fsd_inference.network import Activation, Network, graph_challenge, load_inputs, random_network, read_categories
from fsd_inference.network.random_network import _distinct_columns
from tests.support.reference import layer_output

SHARED = Path(os.environ.get("FSD_SHARED", Path(__file__).parents[3] / "shared")) / "graphchallenge"


def activations(network: Network, x: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Yield the activations (neurons x samples) after each layer: the slow, obvious way."""
    for layer in network:
        x = layer_output(layer, x).astype(np.float32)
        yield x


# SHA-256 over the sorted columns of the published matrices (rows are inputs), checked against the published files.
DIGESTS = {
    (1024, 12): "cccbb97472850c08be4f277fe578fbd23b80c2c8d64cde5e783a8fc97fbfe1d9",
    (1024, 120): "04a85edb283b8eb034203dc0cbe34afb00fa02c93ea85712b406b0bd98b39352",
    (4096, 12): "fa6243a02c5ab56f10d9c9be8ed3ada04a3f982ebe591b8529af14f48cf6e9f2",
    (4096, 120): "2ccdf96e9a74048640a1980c21b7840a68ba47c0932e8edfc3eb300ff6a90484",
}


@pytest.mark.parametrize(("neurons", "layers"), list(DIGESTS))
def test_graph_challenge_networks_are_the_published_ones(neurons: int, layers: int) -> None:
    hashed = hashlib.sha256()
    for layer in graph_challenge(neurons, layers):
        published = layer.weights.T.tocsr()
        published.sort_indices()
        hashed.update(published.indices.astype("<i4").data)
    assert hashed.hexdigest() == DIGESTS[neurons, layers]


@pytest.mark.parametrize(("neurons", "bias"), [(1024, -0.3), (4096, -0.35), (16384, -0.4), (65536, -0.45)])
def test_graph_challenge_layers_have_the_official_parameters(neurons: int, bias: float) -> None:
    network = graph_challenge(neurons, 14)
    layer = network.layer(13)  # in the second block, so permuted
    assert layer.shape == (neurons, neurons)
    assert layer.one_value == 1 / 16
    assert layer.bias.tolist() == [np.float32(bias)]
    assert layer.activation == Activation("clipped_relu", 32)
    assert layer.zero_preserving
    assert network.connections == 14 * 32 * neurons
    degrees = np.bincount(layer.kernel_arrays().indices, minlength=neurons)
    assert (degrees == 32).all()


def test_a_shallower_network_is_a_prefix() -> None:
    deep, shallow = graph_challenge(1024, 1920), graph_challenge(1024, 20)
    assert all(deep.layer(k) == layer for k, layer in enumerate(shallow))
    assert deep.layer(1919).connections == 32 * 1024


def test_other_sizes_and_depths_are_refused() -> None:
    for neurons, layers in ((1000, 120), (1024, 0), (1024, 1921)):
        with pytest.raises(InputError, match="Graph Challenge"):
            graph_challenge(neurons, layers)


@pytest.mark.skipif(not SHARED.exists(), reason=f"needs the Graph Challenge's data in {SHARED}")
def test_the_official_answer_comes_out() -> None:
    samples = 200
    x = load_inputs(SHARED / "inputs_1024.npz", 1024)[:samples].toarray().T
    *_, last = activations(graph_challenge(1024, 120), x)
    official = read_categories(SHARED / "neuron1024-l120-categories.tsv")
    np.testing.assert_array_equal(np.flatnonzero(last.any(axis=0)) + 1, official[official <= samples])


@pytest.mark.parametrize(
    ("widths", "connections"),
    [([256], 32), ([1024], 8), ([64], 4), ([300, 100, 50], 16), ([128], 2), ([200], 1), ([96], 96)],
)
@pytest.mark.parametrize(("seed", "scale"), [(0, 1), (1, 1e-3), (2, 1e3)])
def test_random_networks_stay_alive(widths: list[int], connections: int, seed: int, scale: float) -> None:
    layers = 130
    network = random_network([widths[k % len(widths)] for k in range(layers + 1)], connections, seed=seed)
    rng = np.random.default_rng(seed)
    x = (scale * (rng.random((widths[0], 40)) < 0.2)).astype(np.float32)
    for k, y in enumerate(activations(network, x)):
        assert 0.05 < (y > 0).mean() < 0.95
        assert y.any(axis=0).all()
        if k >= 100:  # by then the scale of the input is forgotten
            assert 0.05 < np.sqrt((y**2).mean()) < 50
            assert y.max() < 1e4


def test_samples_do_not_all_become_one() -> None:
    rng = np.random.default_rng(0)
    x = (rng.random((1024, 40)) < 0.2).astype(np.float32)
    *_, last = activations(random_network([1024] * 121, 32), x)
    similarity = np.asarray(np.corrcoef(last.T))[np.triu_indices(40, 1)]
    assert similarity.mean() < 0.6
    alive = (last > 0).mean(axis=1)
    assert ((alive > 0) & (alive < 1)).mean() > 0.5  # most neurons tell samples apart


def test_random_layers_are_sparse_distinct_and_seeded() -> None:
    network = random_network([50, 200, 30], 8, seed=3)
    assert network.widths == (50, 200, 30)
    assert network.connections == 8 * 230
    for layer in network:
        assert (np.diff(layer.kernel_arrays().indptr) == 8).all()
        assert (layer.bias > 0).any()
        assert (layer.bias < 0).any()
        assert not layer.zero_preserving
        rows = {row.tobytes() for row in layer.weights.toarray()}
        assert len(rows) == layer.shape[0]
    assert network.layer(1) == network.layer(1)
    assert random_network([50, 200, 30], 8, seed=3).digest == network.digest
    assert random_network([50, 200, 30], 8, seed=4).digest != network.digest
    assert random_network([3, 5], 8).connections == 15  # fewer inputs than connections: dense


@pytest.mark.parametrize(("inputs", "count"), [(100, 5), (12, 7), (5, 5), (4, 1)])
def test_columns_are_distinct_and_evenly_drawn(inputs: int, count: int) -> None:
    rows = 20_000
    columns = _distinct_columns(np.random.default_rng(0), rows, inputs, count)
    assert (np.diff(columns, axis=1) > 0).all()
    drawn = np.bincount(columns.reshape(-1), minlength=inputs) / (rows * count / inputs)
    np.testing.assert_allclose(drawn, 1, atol=0.2)


@pytest.mark.parametrize(
    ("widths", "connections", "seed", "says"),
    [
        ([10], 3, 0, "at least two widths"),
        ([10, 0], 3, 0, "not 0"),
        ([10, 10], 0, 0, "at least one connection"),
        ([10, 10], 1, -1, "seed"),
    ],
)
def test_nonsense_random_networks_are_refused(widths: list[int], connections: int, seed: int, says: str) -> None:
    with pytest.raises(InputError, match=says):
        random_network(widths, connections, seed=seed)
