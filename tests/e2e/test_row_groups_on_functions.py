"""Rows that sum, pool and are carried, each with its own activation, and an output function, on functions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special

import fsd_inference as fsd
from tests.support.functions import functions_stack
from tests.support.reference import layer_output
from tests.support.runs import dense, same, serial

P = 3
WIDTH = 24

pytestmark = [pytest.mark.emulator, pytest.mark.functions]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("row_groups")
    with functions_stack(folder, ranks=P):
        yield folder / "stack.json"


@pytest.fixture(scope="module")
def network() -> fsd.Network:
    """Two layers of gelu, prelu, pooling and carried rows, and one of scores."""
    random = np.random.default_rng(7)
    groups = [
        fsd.RowGroup(8, fsd.Activation("gelu")),
        fsd.RowGroup(6, fsd.Activation("prelu")),
        fsd.RowGroup(4, fsd.Activation("tanh"), "max"),
        fsd.RowGroup(6, fsd.Activation("identity")),
    ]
    layers = []
    for _ in range(2):
        weights = random.standard_normal((WIDTH, WIDTH)) * (random.random((WIDTH, WIDTH)) < 0.4)
        bias = random.standard_normal(WIDTH)
        weights[14:18] = random.permuted(np.tile(np.arange(WIDTH) < 5, (4, 1)), axis=1)
        weights[18:] = np.eye(WIDTH)[random.permutation(WIDTH)[:6]]
        bias[18:] = 0
        layers.append(fsd.Layer(weights, bias, groups, slopes=random.standard_normal(WIDTH).astype(np.float32)))
    layers.append(fsd.Layer(random.standard_normal((10, WIDTH)), 0, "identity"))
    return fsd.Network(layers, name="groups", output=fsd.OutputFunction("softmax"))


@pytest.fixture(scope="module")
def x() -> NDArray[np.float32]:
    return np.random.default_rng(8).standard_normal((50, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def _pushed(stack: Path, network: fsd.Network) -> None:
    fsd.push(network, stack=stack, workers=P)


@pytest.mark.parametrize("channel", ["queue", "object"])
def test_the_bits_are_those_of_the_serial_run(
    channel: str, stack: Path, network: fsd.Network, x: NDArray[np.float32]
) -> None:
    with fsd.Session(network, channel=channel, workers=P, stack=stack) as session:
        answer = session.infer(x)
    assert answer.report.usage.requests["lambda.invoke"] == 1 + P
    assert same(answer.outputs, serial(network, x))
    scores = x.T.astype(np.float64)
    for layer in network:
        scores = layer_output(layer, scores)
    np.testing.assert_allclose(dense(answer.outputs), special.softmax(scores.T, axis=1), rtol=1e-4, atol=1e-6)
