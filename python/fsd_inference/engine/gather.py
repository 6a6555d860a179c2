"""Per-sample summaries, merged up the launch tree: the largest output and the lowest neuron that has it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Summary = tuple[NDArray[np.float32], NDArray[np.int32]]


def encode(summary: Summary) -> bytes:
    """Pack values float32[samples] and neurons int32[samples], little-endian."""
    values, neurons = summary
    return values.astype("<f4").tobytes() + neurons.astype("<i4").tobytes()


def decode(data: bytes, samples: int) -> Summary:
    """Unpack the output of `encode`; raise `ValueError` if the length is wrong."""
    if len(data) != 8 * samples:
        raise ValueError(f"a summary of {samples} samples has {8 * samples} bytes, not {len(data)}")
    return (
        np.frombuffer(data, "<f4", samples).astype(np.float32),
        np.frombuffer(data, "<i4", samples, offset=4 * samples).astype(np.int32),
    )


def merge(summaries: Sequence[Summary]) -> Summary:
    """Return, for each sample, the largest output of several ranks; ties go to the lowest neuron.

    The summary of a rank without output rows is (-inf, -1), which never wins against a rank with rows.
    """
    values, neurons = summaries[0][0].copy(), summaries[0][1].copy()
    for other_values, other_neurons in summaries[1:]:
        better = (other_values > values) | (
            (other_values == values) & (other_neurons >= 0) & ((other_neurons < neurons) | (neurons < 0))
        )
        values[better] = other_values[better]
        neurons[better] = other_neurons[better]
    return values, neurons


def merge_encoded(parts: Sequence[bytes], samples: int) -> bytes:
    """Merge encoded summaries; if all are empty (because rows were requested) the result is empty too."""
    if not any(parts):
        return b""
    return encode(merge([decode(part, samples) for part in parts]))
