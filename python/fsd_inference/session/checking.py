"""Comparison of a network with the model that it was imported from: `check`."""

from __future__ import annotations

import numbers
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.engine.serial import serial_outputs
from fsd_inference.errors import InputError, SettingError
from fsd_inference.network import Network, as_inputs
from fsd_inference.network.checks import dense_array, rounded_float32, shown
from fsd_inference.network.fidelity import TOLERANCE, TOLERANCE_IN_16_BITS, Check, compared
from fsd_inference.network.originals.opening import original
from fsd_inference.network.originals.original import Function, Original


def check(
    network: Network | str | os.PathLike[str],
    against: Any,
    x: Any,
    *,
    outputs: Sequence[str] | None = None,
    tolerance: float | None = None,
) -> Check:
    """Compare a network, run in this process, with the model that it was imported from.

    Parameters
    ----------
    network : Network or path
        The network.
    against : path-like, torch.nn.Module or callable
        The model: an ONNX file, which ONNX Runtime runs if it is installed, otherwise ONNX's reference evaluator; a
        ``.pt2`` file or a module in evaluation mode, which PyTorch runs; or a function from a float32 array of samples
        to an array of outputs.
    x : array_like or sparse matrix, shape (samples, features) or (samples, ...)
        Samples in the shape that the model takes; those of a file may also be flattened.
    outputs : sequence of str, optional
        For an ONNX file: the tensors that the network was imported with instead of the model's outputs.
    tolerance : float, optional
        The largest difference that is allowed, relative to the largest absolute output of the model, or absolute where
        that is below 1; by default 1e-4, or 0.05 for a model that computes in 16 bits.

    Returns
    -------
    Check
        Its `agrees` says whether the difference is allowed; `parts_at` is the first layer that differs, if it is known:
        for files, which are imported again for that.

    Raises
    ------
    InputError
        If the model cannot be run, has other outputs, or returns values that are not finite numbers.
    SettingError
        If the tolerance is not a number from 0.

    Examples
    --------
    >>> import numpy as np, fsd_inference as fsd
    >>> weights = np.array([[0.5, 0.0], [1.0, -2.0]], np.float32)
    >>> network = fsd.Network.from_matrices([weights])
    >>> fsd.check(network, lambda x: x @ weights.T, [[1.0, 2.0], [3.0, 4.0]]).agrees
    True
    """
    if tolerance is not None and not (isinstance(tolerance, numbers.Real) and tolerance >= 0):
        raise SettingError(f"the tolerance must be a number from 0, such as 1e-4, not {shown(tolerance)}")
    if not isinstance(network, Network):
        network = Network.load(network)
    model = original(against, outputs)
    is_sparse = bool(sparse.issparse(x))  # a name, so that x stays Any for the type checker
    given = dense_array(x.toarray() if is_sparse else x, "the input")
    if given.ndim < 2 or not given.size:
        raise InputError("the input must be samples x features, or samples x channels x ...")
    batch = as_inputs(given.reshape(len(given), -1), network.widths[0])
    samples = rounded_float32(batch.toarray(), "the input").reshape(given.shape)
    if tolerance is None:
        tolerance = TOLERANCE_IN_16_BITS if model.in_16_bits else TOLERANCE
    found = _compared(network, model, batch, samples, tolerance)
    if found.agrees:
        return found
    worst = [sample for sample, _ in found.worst]
    return replace(found, parts_at=_parts_at(network, model, batch[worst], samples[worst], tolerance))


def _compared(
    network: Network, model: Original, batch: sparse.csr_array, samples: NDArray[np.float32], tolerance: float
) -> Check:
    scores = serial_outputs(network, batch)
    found = model.outputs(samples)
    output = network.output
    if output is None or not output.selects:
        ours = scores if output is None else output.transformed(scores)
        return compared(ours.toarray(), found[0], model.name, tolerance)
    selected, values = output.top(scores)
    indices = next((array for array in found if array.dtype.kind in "iu"), None)
    if indices is None and output.kind == "argmax" and not isinstance(model, Function):
        indices = found[0].astype(np.int64)  # which the model converts to floats
    if indices is None:
        return compared(values, found[0], model.name, tolerance)
    theirs = _selected(scores, indices, selected.shape[1], model.name)
    return compared(values, theirs, model.name, tolerance, same=(selected == indices).all(axis=1))


def _selected(scores: sparse.csr_array, indices: NDArray[Any], count: int, name: str) -> NDArray[np.float32]:
    """Return the scores of the outputs that the model selects: equal ones may be in another order."""
    if indices.shape[1] != count:
        raise InputError(
            f"the network selects {count:,} outputs, but {name} returns {indices.shape[1]:,} per sample: it is another "
            "model"
        )
    outputs = scores.shape[1]
    wrong = indices[(indices < 0) | (indices >= outputs)]
    if wrong.size:
        raise InputError(
            f"{name} selects output {wrong[0]}, but the network has outputs 0 to {outputs - 1}: it is another model"
        )
    return np.take_along_axis(scores.toarray(), indices.astype(np.int64), axis=1)


def _parts_at(
    network: Network, model: Original, batch: sparse.csr_array, samples: NDArray[np.float32], tolerance: float
) -> str | None:
    """Return the first layer whose outputs differ from the tensors of the model that it computes."""
    found = model.trace()
    if found is None or list(found[0]) != list(network.widths[1:]):
        return None
    _, trace = found
    names = [one.name for one in trace]
    expected = dict(zip(names, model.outputs(samples, names), strict=True))
    rows = batch
    for number, layer in enumerate(network):
        rows = serial_outputs([layer], rows)
        values = rows.toarray()
        for one in trace:
            if one.layer == number:
                theirs = expected[one.name]
                bound = tolerance * max(1.0, float(np.abs(theirs).max()))
                if np.abs(values[:, one.neurons] - theirs).max() > bound:
                    return f"layer {number}, {one.label}"
    return None
