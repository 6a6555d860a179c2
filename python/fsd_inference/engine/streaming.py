"""Inference with a network that exceeds memory: its layers are read ahead of the computation and dropped after it."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING

from fsd_inference.errors import SettingError
from fsd_inference.kernels import LayerKernel
from fsd_inference.threads import ThreadPool

if TYPE_CHECKING:
    from fsd_inference.network import Network

PROCESS_BYTES = 150_000_000
"""Memory of a process with the libraries of a session, and what reading a layer takes for the moment."""
MOST_LAYERS = 16
"""Layers handed to the kernel at once: enough to keep panels in the CPU cache over several layers, few enough to fit
in memory."""
_READERS = 2
_LAYERS_HELD = 4


def layers_at_once(network: Network, samples: int, batch_bytes: int, limit: int) -> int | None:
    """Return how many layers to hand to the kernel at once within a memory limit, or None if all layers fit in it.

    Parameters
    ----------
    network : Network
    samples : int
        Samples of the batch.
    batch_bytes : int
        Size of the batch.
    limit : int
        Maximum memory of the process in bytes.

    Raises
    ------
    SettingError
        The activations of the batch leave no room for four layers: one that is computed, its second layout, one that
        is ready, and one that is being read.
    """
    widths, layers = network.widths, layer_bytes(network)
    # The inputs and outputs of a layer; at the end the outputs, dense and as CSR.
    values = max(*map(sum, itertools.pairwise(widths)), 3 * widths[-1])
    others = PROCESS_BYTES + 2 * batch_bytes + 4 * samples * values
    if others + 2 * sum(layers) <= limit:  # each with its second layout
        return None
    largest = max(layers)
    count = (limit - others) // (_LAYERS_HELD * largest)
    if count < 1:
        needed = others + _LAYERS_HELD * largest
        raise SettingError(
            f"{samples:,} samples at a time and {_LAYERS_HELD} layers need {needed / 2**20:,.0f} MB, more than the "
            f"memory limit of {limit / 2**20:,.0f} MB; give fewer samples at a time, or raise the limit"
        )
    return int(min(count, MOST_LAYERS))


def layer_bytes(network: Network) -> list[int]:
    """Return the memory of each layer in bytes."""
    return [
        connections * (2 if inputs <= 1 << 16 else 4) + 4 * stored + 12 * outputs
        for (connections, stored), (inputs, outputs) in zip(
            network.sizes(), itertools.pairwise(network.widths), strict=True
        )
    ]


def stream_layers(network: Network, ahead: int) -> Iterator[LayerKernel]:
    """Yield the layers of a network, of which up to `ahead` are being read or ready while the caller computes.

    Raises
    ------
    FileFormatError
        A layer cannot be read.
    """
    reading: deque[Future[LayerKernel]] = deque()
    with ThreadPool(min(_READERS, ahead), thread_name_prefix="layer") as threads:
        try:
            for k in range(len(network)):
                reading.append(threads.submit(_read, network, k))
                if len(reading) > ahead:
                    yield reading.popleft().result()
            while reading:
                yield reading.popleft().result()
        finally:
            for future in reading:
                future.cancel()


def _read(network: Network, index: int) -> LayerKernel:
    return LayerKernel(*network.layer(index).kernel_arrays())
