"""Which neurons of an imported network hold the tensors of the model that it was imported from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from fsd_inference.network.importing.lowering import Refs


class NamedRefs(NamedTuple):
    """A tensor of a model.

    Attributes
    ----------
    name : str
        Its name in the model.
    label : str
        The operator that makes it, for messages.
    refs : ndarray of int64
        References to the neurons that compute it, in the shape of one sample.
    """

    name: str
    label: str
    refs: Refs


class Traced(NamedTuple):
    """A tensor of a model whose values are outputs of a layer.

    Attributes
    ----------
    layer : int
        The first layer that holds all of it.
    name : str
        Its name in the model.
    label : str
        The operator that makes it, for messages.
    neurons : ndarray of int64
        The neurons of the layer, in the order of the flattened tensor.
    """

    layer: int
    name: str
    label: str
    neurons: Refs


def traced(layers: Sequence[Refs], tensors: Iterable[NamedRefs]) -> list[Traced]:
    """Return the tensors that layers hold, without others of the same neurons, in the order of the layers.

    Parameters
    ----------
    layers : sequence of (ndarray of int64)
        References to the neurons of each layer.
    tensors : iterable of NamedRefs
        The tensors.
    """
    first = np.full(max(int(refs.max()) for refs in layers) + 1, -1)
    for number in reversed(range(len(layers))):
        first[layers[number]] = number
    orders: dict[int, Refs] = {}
    found: dict[bytes, Traced] = {}
    for name, label, refs in tensors:
        read = refs.ravel()
        if not read.size or read.min() < 0 or read.max() >= first.size or first[read].min() < 0:
            continue
        number = int(first[read].max())
        if number not in orders:
            orders[number] = np.argsort(layers[number])
        order = orders[number]
        places = np.minimum(np.searchsorted(layers[number], read, sorter=order), order.size - 1)
        if (layers[number][order[places]] == read).all():
            found.setdefault(read.tobytes(), Traced(number, name, label, order[places]))
    return sorted(found.values(), key=lambda one: one.layer)
