"""Pruning of a whole network."""

from __future__ import annotations

import numbers
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from fsd_inference.errors import InputError, SettingError
from fsd_inference.kernels import LayerKernel, NonFiniteError, SerialState, read_only
from fsd_inference.network.checks import shown
from fsd_inference.network.inputs import as_inputs
from fsd_inference.network.layer import Layer
from fsd_inference.network.model import Network
from fsd_inference.network.pruning.calibration import calibrated
from fsd_inference.network.pruning.connections import Prunable, kept_only, with_weights
from fsd_inference.network.pruning.rules import Largest, OfEvery, Rule, largest

_OF_EVERY = re.compile(r"([1-9][0-9]{0,8}):([1-9][0-9]{0,8})")


def prune(
    network: Network,
    sparsity: float | None = None,
    *,
    by: str = "layer",
    x: Any = None,
    progress: Callable[[int], object] | None = None,
) -> Network:
    """Remove the least important connections of a network.

    Without inputs, the connections with the largest absolute weights are kept, unchanged. With a sample of inputs,
    those are kept whose loss would change the layer's weighted sums most, and their weights are adjusted by least
    squares, so that these sums stay close to those of the original network.

    Biases stay, and so do neurons that are the largest of their inputs, or only carry an input on: one connection of
    weight 1, bias 0, identity.

    Parameters
    ----------
    network : Network
        Its layers are held in memory one at a time, those of the result together.
    sparsity : float, optional
        Fraction to remove of the connections that the network would have if its layers were dense, 0 <= sparsity < 1. A
        layer that is sparser already is not changed. Must be given unless `by` is n:m.
    by : str, optional
        "layer" removes the same fraction in each layer; "global" removes the smallest absolute weights of all layers,
        or with inputs, as many connections in each layer as that would; n:m such as "2:4" keeps n of every m
        consecutive inputs of a neuron.
    x : array or sparse matrix, samples x features, optional
        A sample of the inputs, such as 1,000 samples of the training data. Samples x neurons of a layer must fit in
        memory as float64.
    progress : callable, optional
        Called after each layer with the number of layers done.

    Returns
    -------
    Network
        Held in memory; its `origin` says how it was pruned.

    Raises
    ------
    SettingError
        If the sparsity or `by` is invalid.
    InputError
        If the inputs do not fit the network, or it overflows float32 on them.

    Examples
    --------
    >>> import fsd_inference as fsd
    >>> network = fsd.Network.from_matrices([[[0.1, -2.0, 0.3, 1.0]]], biases=[[0.5]])
    >>> fsd.prune(network, 0.5).layer(0).weights.toarray()
    array([[ 0., -2.,  0.,  1.]], dtype=float32)
    """
    rules, said = _rules(network, sparsity, by)
    if x is not None:
        x = as_inputs(x, network.widths[0], what="the calibration input")
        said = f"{said}, calibrated on {x.shape[0]:,} samples"
        layers = _calibrated(network, rules, x, progress)
    else:
        layers = _by_magnitude(network, rules, progress)
    return network.with_layers(layers, said)


def _rules(network: Network, sparsity: float | None, by: str) -> tuple[Sequence[Rule], str]:
    """Return a rule for each layer, and what was done in words."""
    if isinstance(by, str) and (pair := _OF_EVERY.fullmatch(by)):
        kept, group = int(pair[1]), int(pair[2])
        if kept > group:
            raise SettingError(f"pruning by {by} would keep {kept} of every {group} inputs; write the fewer first")
        if sparsity is not None:
            raise SettingError(f"pruning by {by} sets the sparsity; omit sparsity, or prune by layer or global")
        return [OfEvery(kept, group)] * len(network), f"pruned by {by}"
    if by not in ("layer", "global"):  # a tuple, as what is given need not be hashable
        raise SettingError(f"pruning is by layer, global or n:m such as 2:4, not by {shown(by)}")
    if sparsity is None:
        raise SettingError(f"pruning by {by} needs a sparsity, such as 0.9")
    if isinstance(sparsity, bool) or not isinstance(sparsity, numbers.Real) or not 0 <= sparsity < 1:
        raise SettingError(f"the sparsity must be a number from 0 to below 1, not {shown(sparsity)}")
    if by == "global":
        counts, where = _global_counts(network, sparsity), "globally"
    else:
        counts, where = _layer_counts(network, sparsity), "by layer"
    return [Largest(count) for count in counts], f"pruned to {100 * float(sparsity):.6g}% {where}"


def _layer_counts(network: Network, sparsity: float) -> list[int]:
    positions = [Prunable.of(layer).positions for layer in network]
    return [number - round(sparsity * number) for number in positions]


def _global_counts(network: Network, sparsity: float) -> list[int]:
    """Return how many of the largest absolute weights of all layers are in each layer."""
    positions, magnitudes = 0, []
    for layer in network:
        prunable = Prunable.of(layer)
        positions += prunable.positions
        magnitudes.append(prunable.magnitudes)
    mask = largest(np.concatenate(magnitudes), positions - round(sparsity * positions))
    ends = np.cumsum([len(one) for one in magnitudes])
    return [int(np.count_nonzero(part)) for part in np.split(mask, ends[:-1])]


def _by_magnitude(network: Network, rules: Sequence[Rule], progress: Callable[[int], object] | None) -> list[Layer]:
    layers = []
    for layer, rule in zip(network, rules, strict=True):
        prunable = Prunable.of(layer)
        mask = rule.keep(prunable.magnitudes, prunable.weights)
        if not mask.all():
            layer = with_weights(layer, prunable.rows, kept_only(prunable.weights, mask))  # noqa: PLW2901
        layers.append(layer)
        if progress is not None:
            progress(len(layers))
    return layers


def _calibrated(
    network: Network, rules: Sequence[Rule], x: sparse.csr_array, progress: Callable[[int], object] | None
) -> list[Layer]:
    """Prune layer after layer: each makes up also for what the pruned layers before it changed in its inputs."""
    layers: list[Layer] = []
    dense = pruned = x
    for layer, rule in zip(network, rules, strict=True):
        prunable = Prunable.of(layer)
        if rule.keep(prunable.magnitudes, prunable.weights).all():
            left = layer
        else:
            left = with_weights(layer, prunable.rows, calibrated(prunable.weights, rule, pruned, dense))
        layers.append(left)
        is_same = left is layer and pruned is dense
        dense = _outputs(layer, dense, len(layers) - 1)
        pruned = dense if is_same else _outputs(left, pruned, len(layers) - 1)
        if progress is not None:
            progress(len(layers))
    return layers


def _outputs(layer: Layer, x: sparse.csr_array, number: int) -> sparse.csr_array:
    """Return the activations of a layer, samples x neurons."""
    starts, columns = x.indptr.astype(np.int64), x.indices.astype(np.int32)
    state = SerialState(read_only(starts), read_only(columns), read_only(x.data), layer.shape[1], 1)
    try:
        state.apply([LayerKernel(*layer.kernel_arrays())])
    except NonFiniteError as error:
        raise InputError(
            f"layer {number} overflows float32 on the calibration input (neuron {error.args[2]}); scale the inputs"
        ) from error
    indptr, indices, data = state.result()
    return sparse.csr_array((data, indices, indptr), shape=(x.shape[0], layer.shape[0]))
