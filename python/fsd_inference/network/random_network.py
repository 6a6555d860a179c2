"""Random networks whose activations neither die out nor become equal for all samples, at any depth.

The weights of a neuron are normally distributed and shifted to sum to zero, so only the differences between its inputs
count. The common mean of relu outputs cancels; it is what makes deep random relu networks compute the same answer for
every sample. Each connection then contributes Var(relu(z)) with z about N(0, 1): 1/2 - 1/(2 pi) for many connections,
and at most 1/2 for one or two, where z is far from normal (and a single weight cannot sum to zero). The squared weights
of a neuron sum to `_GAIN` divided by that variance, and biases have mean 0 and variance 1 - `_GAIN`. The variance v of
pre-activations thus follows v' = gain v + (1 - gain) from layer to layer: it converges to 1 from any scale of the input
and does not drift, however narrow or deep the network is. With a gain below 0.68 all samples would converge to the same
activations; with a gain of 1 magnitudes would drift.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fsd_inference.errors import InputError
from fsd_inference.network.activation import RELU
from fsd_inference.network.checks import MAX_WIDTH, whole_number
from fsd_inference.network.layer import Layer, index_dtype
from fsd_inference.network.model import Network
from fsd_inference.network.source import LayerSource

_GAIN = 0.9
_KEYS_AT_ONCE = 1 << 22


def random_network(widths: Sequence[int], connections: int, *, seed: int = 0) -> Network:
    """Return a relu network with random connections, weights and biases; layers are generated on each access.

    Parameters
    ----------
    widths : sequence of int
        Number of features, then the number of neurons of each layer.
    connections : int
        Inputs of each neuron, distinct and uniformly random; a layer with fewer inputs is dense.
    seed : int, optional
        Random seed; equal seeds give equal networks (with the same NumPy).

    Returns
    -------
    Network

    Raises
    ------
    InputError
        If there are fewer than two widths, or a number is out of range.

    Examples
    --------
    >>> import fsd_inference as fsd
    >>> fsd.random_network([256, 192, 64], connections=16, seed=1).connections
    4096
    """
    if len(widths) < 2:
        raise InputError("a random network needs at least two widths: its features, then the neurons of each layer")
    widths = tuple(whole_number(width, "the width of a layer") for width in widths)
    connections = whole_number(connections, "the connections of a neuron")
    seed = whole_number(seed, "a seed")
    for width in widths:
        if not 1 <= width <= MAX_WIDTH:
            raise InputError(f"the width of a layer must be 1 to {MAX_WIDTH} neurons, not {width}")
    if connections < 1:
        raise InputError(f"a neuron of a random network needs at least one connection, not {connections}")
    if seed < 0:
        raise InputError(f"a seed must be at least 0, not {seed}")
    source = _RandomLayers(widths, connections, seed)
    return Network.from_source(source, name=f"random-{max(widths)}x{len(widths) - 1}-seed{seed}")


class _RandomLayers(LayerSource):
    def __init__(self, widths: tuple[int, ...], connections: int, seed: int) -> None:
        self.widths = widths
        self._connections = connections
        self._seed = seed

    def layer(self, index: int) -> Layer:
        """Generate layer `index` from a random stream of its own."""
        inputs, outputs = self.widths[index], self.widths[index + 1]
        count = min(self._connections, inputs)
        rng = np.random.default_rng((self._seed, index))
        columns = _distinct_columns(rng, outputs, inputs, count)
        weights = rng.standard_normal((outputs, count), np.float32)
        if count > 1:
            weights -= weights.mean(axis=1, keepdims=True)
        variance = 1 / 2 - max(0, 1 - 2 / count) / (2 * math.pi)
        weights *= np.float32(math.sqrt(_GAIN / variance)) / np.linalg.norm(weights, axis=1, keepdims=True)
        bias = rng.standard_normal(outputs, np.float32) * np.float32(math.sqrt(1 - _GAIN))
        return Layer.from_arrays(
            np.arange(0, outputs * count + 1, count, dtype=np.int64),
            columns.astype(index_dtype(inputs)).reshape(-1),
            weights.reshape(-1),
            inputs,
            bias=bias,
            activation=RELU,
        )

    def connections(self) -> int:
        """Return the number of connections of all layers, without generating them."""
        pairs = zip(self.widths[:-1], self.widths[1:], strict=True)
        return sum(outputs * min(self._connections, inputs) for inputs, outputs in pairs)


def _distinct_columns(rng: np.random.Generator, rows: int, inputs: int, count: int) -> NDArray[np.int64]:
    """Return for each row `count` distinct columns below `inputs`, ascending and uniformly random."""
    chosen = np.empty((rows, count), np.int64)
    if count * count < 8 * inputs:
        # Floyd's sampling, all rows at once: quadratic in count, but independent of the number of inputs.
        for taken, top in enumerate(range(inputs - count, inputs)):
            draw = rng.integers(0, top, rows, endpoint=True)
            again = (chosen[:, :taken] == draw[:, None]).any(axis=1)
            chosen[:, taken] = np.where(again, top, draw)
    else:
        # The columns with the smallest random keys: linear in the number of inputs.
        step = max(1, _KEYS_AT_ONCE // inputs)
        for start in range(0, rows, step):
            keys = rng.random((min(step, rows - start), inputs), np.float32)
            chosen[start : start + step] = np.argpartition(keys, count - 1, axis=1)[:, :count]
    chosen.sort(axis=1)
    return chosen
