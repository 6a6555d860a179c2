"""The error for a numeric overflow."""

from __future__ import annotations

from fsd_inference.errors import NumericError


def overflow(layer: int, neuron: int, rank: int | None = None) -> NumericError:
    """Return the error for a weighted sum that is not finite, at a layer's global neuron."""
    message = f"layer {layer}, neuron {neuron}: the weighted sum is not a finite number; the network overflows float32"
    return NumericError(message, rank=rank, layer=layer, operation="compute")
