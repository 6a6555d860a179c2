"""Handwritten digits as inputs of any square size."""

import sys

import numpy as np
import pytest
from scipy import sparse

from fsd_inference.errors import InputError
from fsd_inference.network import Activation, digits, graph_challenge

sklearn_datasets = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn (the extra 'local')")


@pytest.mark.parametrize(("neurons", "samples"), [(1024, 150), (4096, 60)])
def test_some_digits_live_and_some_die(neurons: int, samples: int) -> None:
    x = digits(neurons, samples)
    y = sparse.csr_array(x.T)
    for layer in graph_challenge(neurons, 120):
        y = sparse.csr_array(layer.weights @ y)  # zero-preserving, so that only what is stored can live
        assert layer.activation == Activation("clipped_relu", 32)
        y.data = np.clip(y.data + layer.bias, 0, 32)
        y.eliminate_zeros()
    alive = np.unique(y.indices).size / samples
    assert 0.2 < alive < 0.8


@pytest.mark.parametrize("side", [8, 11, 32])
def test_digits_are_thresholded_images(side: int) -> None:
    x = digits(side * side, 10)
    assert isinstance(x, sparse.csr_array)
    assert x.shape == (10, side * side)
    assert x.dtype == np.float32
    assert set(x.data.tolist()) == {1.0}
    images = sklearn_datasets.load_digits().images[:10]
    # The slow, obvious way: interpolate each row, then each column, between pixel centres.
    at, centres = (np.arange(side) + 0.5) * 8 / side - 0.5, np.arange(8)
    for image, row in zip(images, x.toarray().reshape(10, side, side), strict=True):
        wide = np.array([np.interp(at, centres, line) for line in image])
        full = np.array([np.interp(at, centres, line) for line in wide.T]).T
        sure = np.abs(full - 0.8 * 16) > 1e-9
        np.testing.assert_array_equal(row[sure], full[sure] > 0.8 * 16)


def test_more_samples_are_shifted_copies() -> None:
    side, count = 16, 1797
    x = digits(side * side, 2 * count + 5, seed=1)
    assert (x[:count] - digits(side * side, count, seed=2)).nnz == 0
    assert (x - digits(side * side, 2 * count + 5, seed=1)).nnz == 0
    assert (x - digits(side * side, 2 * count + 5, seed=2)).nnz > 0
    shifts = range(-side // 8, side // 8 + 1)
    for copy in (count, count + 1, 2 * count + 4):
        original = x[[copy % count]].toarray().reshape(side, side)
        padded = np.pad(original, side)
        shifted = [padded[side - d : 2 * side - d, side - r : 2 * side - r] for d in shifts for r in shifts]
        assert any((x[[copy]].toarray().reshape(side, side) == image).all() for image in shifted)


@pytest.mark.parametrize(
    ("neurons", "samples", "seed", "says"),
    [
        (1000, 5, 0, "square number"),
        (49, 5, 0, "square number"),
        (-64, 5, 0, "square number"),
        (64, 0, 0, "one sample"),
        (64, 5, -1, "seed"),
    ],
)
def test_nonsense_is_refused(neurons: int, samples: int, seed: int, says: str) -> None:
    with pytest.raises(InputError, match=says):
        digits(neurons, samples, seed=seed)


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match=r"fsd-inference\[local\]"):
        digits(64, 1)
