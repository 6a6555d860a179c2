"""The exact networks of the MIT/Amazon/IEEE Sparse DNN Graph Challenge, generated layer by layer.

Layers come in blocks of m = log2(n) layers, n = N/16. Layer k of a block is kron(ones(16, 16), I + S^(2^k)) / 16,
where S is the cyclic shift by one: input a is connected to the outputs that equal a or a - 2^k modulo n. In each block
but the first, the inputs are permuted by the sort order of N random numbers. All sizes draw their numbers from one
Mersenne Twister stream, in ascending order of size.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fsd_inference.errors import InputError
from fsd_inference.network.activation import Activation
from fsd_inference.network.checks import whole_number
from fsd_inference.network.layer import Layer, index_dtype
from fsd_inference.network.model import Network
from fsd_inference.network.source import LayerSource

BIASES = {1024: -0.3, 4096: -0.35, 16384: -0.4, 65536: -0.45}
MAX_LAYERS = 1920
CLIP = 32.0
CONNECTIONS_PER_NEURON = 32

_COPIES = 16  # ones(16, 16) of the Kronecker product
_STREAM_SEED = 5489


def graph_challenge(neurons: int, layers: int) -> Network:
    """Return an official network of the Graph Challenge; its layers are generated on each access.

    Parameters
    ----------
    neurons : int
        Inputs and neurons of each layer: 1024, 4096, 16384 or 65536.
    layers : int
        1 to 1920; the official depths are 120, 480 and 1920, each a prefix of the next.

    Returns
    -------
    Network

    Raises
    ------
    InputError
        If the size or depth is none of these.

    Examples
    --------
    >>> import fsd_inference as fsd
    >>> fsd.graph_challenge(1024, 120).connections
    3932160
    """
    neurons = whole_number(neurons, "the neurons of a layer")
    layers = whole_number(layers, "the number of layers")
    if neurons not in BIASES:
        raise InputError(f"the Graph Challenge has networks of {', '.join(map(str, BIASES))} neurons, not {neurons}")
    if not 1 <= layers <= MAX_LAYERS:
        raise InputError(f"the Graph Challenge networks have 1 to {MAX_LAYERS} layers, not {layers}")
    return Network.from_source(_GeneratedLayers(neurons, layers), name=f"radixnet-{neurons}x{layers}")


def official_bias(neurons: int) -> float | None:
    """Return the bias of the official network of a size; None if there is no such network."""
    return BIASES.get(neurons)


def official_activation() -> Activation:
    """Return the activation of the official networks: relu clipped at 32."""
    return Activation("clipped_relu", CLIP)


class _GeneratedLayers(LayerSource):
    def __init__(self, neurons: int, layers: int) -> None:
        self.widths = (neurons,) * (layers + 1)
        self._neurons = neurons
        self._layers = layers
        self._block_layers = _block_layers(neurons)

    def layer(self, index: int) -> Layer:
        """Generate layer `index`, with inputs as columns: the transpose of the published matrix."""
        neurons, n = self._neurons, self._neurons // _COPIES
        block, k = divmod(index, self._block_layers)
        inputs = self._permutations[block].reshape(_COPIES, n)
        # Output j is connected to the permuted inputs j and j + 2^k modulo n; outputs j and j + n have the same inputs.
        base = np.concatenate((inputs, np.roll(inputs, -(2**k), axis=1)))
        columns = np.tile(np.sort(base.T, axis=1), (_COPIES, 1))
        return Layer.from_arrays(
            np.arange(0, columns.size + 1, CONNECTIONS_PER_NEURON, dtype=np.int64),
            columns.reshape(-1),
            np.full(1, 1 / 16, np.float32),
            neurons,
            bias=np.full(1, BIASES[neurons], np.float32),
            activation=official_activation(),
        )

    def connections(self) -> int:
        """Return the number of connections of all layers, without generating them."""
        return self._neurons * CONNECTIONS_PER_NEURON * self._layers

    @cached_property
    def _permutations(self) -> NDArray[np.uint16]:
        """Input permutation of each block, uint16, shape (blocks, neurons); 21 MB at most, for 65536 x 1920."""
        neurons = self._neurons
        blocks = -(-self._layers // self._block_layers)
        stream = np.random.RandomState(_STREAM_SEED)
        for smaller in sorted(BIASES):
            if smaller == neurons:
                break
            stream.random_sample((MAX_LAYERS // _block_layers(smaller) - 1) * smaller)
        permutations = np.empty((blocks, neurons), index_dtype(neurons))
        permutations[0] = np.arange(neurons)
        for block in range(1, blocks):
            permutations[block] = np.argsort(stream.random_sample(neurons), kind="stable")
        return permutations


def _block_layers(neurons: int) -> int:
    """Return the number of layers per block, log2(neurons / 16)."""
    return (neurons // _COPIES).bit_length() - 1
