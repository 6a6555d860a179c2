"""The interface from which a network gets its layers, and its implementation in memory."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from fsd_inference.network.layer import Layer


class LayerSource(ABC):
    """A source of layers: each layer can be requested any number of times, with equal results.

    Attributes
    ----------
    widths : tuple of int
        Number of inputs of layer 0, then number of outputs of each layer: one entry more than there are layers.
    """

    widths: tuple[int, ...]

    @abstractmethod
    def layer(self, index: int) -> Layer:
        """Return layer `index`, 0 <= index < len(widths) - 1; must be thread-safe."""

    def connections(self) -> int:
        """Return the number of connections of all layers."""
        return sum(connections for connections, _ in self.sizes())

    def sizes(self) -> Sequence[tuple[int, int]]:
        """Return (connections, stored weights) of each layer; a single weight is stored if all are equal."""
        layers = (self.layer(k) for k in range(len(self.widths) - 1))
        return [(layer.connections, layer.stored_weights) for layer in layers]

    def layer_digests(self) -> Sequence[bytes]:
        """Return `Layer.digest` of each layer."""
        return [self.layer(k).digest for k in range(len(self.widths) - 1)]


class LayersInMemory(LayerSource):
    """Layers that are held in memory."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = tuple(layers)
        self.widths = (layers[0].shape[1], *(layer.shape[0] for layer in layers))

    def layer(self, index: int) -> Layer:
        """Return layer `index`."""
        return self._layers[index]


def network_digest(layer_digests: Iterable[bytes]) -> bytes:
    """Return the digest, 16 bytes, of a network with these layers; it does not depend on how the network is stored."""
    hashed = hashlib.sha256(b"fsd-network-1")
    for digest in layer_digests:
        hashed.update(digest)
    return hashed.digest()[:16]
