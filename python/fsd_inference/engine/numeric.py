"""The error of a network that leaves the range of its numbers."""

from __future__ import annotations

from fsd_inference.errors import NumericError


def overflow(layer: int, neuron: int, rank: int | None = None) -> NumericError:
    """Return the error of a weighted sum that is not finite, found at a global neuron of a layer."""
    message = f"layer {layer}, neuron {neuron}: the weighted sum is not a finite number; the network overflows float32"
    return NumericError(message, rank=rank, layer=layer, operation="compute")
