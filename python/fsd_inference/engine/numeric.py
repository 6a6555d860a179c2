"""The errors for values that a number format cannot hold."""

from __future__ import annotations

from fsd_inference.errors import NumericError


def overflow(layer: int, neuron: int, rank: int | None = None) -> NumericError:
    """Return the error for a weighted sum that is not finite, at a layer's global neuron."""
    message = f"layer {layer}, neuron {neuron}: the weighted sum is not a finite number; the network overflows float32"
    return NumericError(message, rank=rank, layer=layer, operation="compute")


def beyond_wire(layer: int, neuron: int, rank: int, wire: str) -> NumericError:
    """Return the error for an activation that rounding to the number format `wire` would make infinite."""
    message = (
        f"layer {layer}, neuron {neuron}: an activation that rank {rank} sends is too large for {wire}; "
        "use another number format for what is exchanged"
    )
    return NumericError(message, rank=rank, layer=layer, operation="pack")
