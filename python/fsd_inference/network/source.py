"""Where a network's layers come from: memory, files or a generator."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from fsd_inference.network.layer import Layer


class LayerSource(ABC):
    """Layers that can be asked for one by one, any number of times; equal each time.

    Attributes
    ----------
    widths : tuple of int
        n_in of layer 0, then n_out of each layer: one more than there are layers.
    """

    widths: tuple[int, ...]

    @abstractmethod
    def layer(self, index: int) -> Layer:
        """Return layer `index`, 0 <= index < len(widths) - 1. May be called from several threads."""

    def connections(self) -> int:
        """Return the connections of all layers."""
        return sum(connections for connections, _ in self.sizes())

    def sizes(self) -> Sequence[tuple[int, int]]:
        """Return each layer's connections, and how many weights are stored for them: one where all are equal."""
        layers = (self.layer(k) for k in range(len(self.widths) - 1))
        return [(layer.connections, layer.stored_weights) for layer in layers]

    def layer_digests(self) -> Sequence[bytes]:
        """Return `Layer.digest` of each layer."""
        return [self.layer(k).digest for k in range(len(self.widths) - 1)]


class LayersInMemory(LayerSource):
    """Layers that are there already."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = tuple(layers)
        self.widths = (layers[0].shape[1], *(layer.shape[0] for layer in layers))

    def layer(self, index: int) -> Layer:
        """Return layer `index`."""
        return self._layers[index]


def network_digest(layer_digests: Iterable[bytes]) -> bytes:
    """Return the 16 bytes that stand for a network with these layers, however it is stored."""
    hashed = hashlib.sha256(b"fsd-network-1")
    for digest in layer_digests:
        hashed.update(digest)
    return hashed.digest()[:16]
