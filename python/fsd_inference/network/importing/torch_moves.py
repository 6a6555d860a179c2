"""ATen operators that only move values of one sample: they cost no neurons."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from fsd_inference.network.importing.lowering import Refs
from fsd_inference.network.importing.problems import UnsupportedError
from fsd_inference.network.importing.torch_call import MIXES, Call, as_array


def _reshape(call: Call) -> Refs:
    return call.tensor("self").reshape(call.shapes[0])


def _same(call: Call) -> Refs:
    if call.arguments.get("train"):
        raise UnsupportedError("is in training mode; call eval() before exporting")
    return call.tensor("input" if "input" in call.arguments else "self")


def _permute(call: Call) -> Refs:
    refs = call.tensor("self")
    if call.name == "permute":
        order = [call.axis(dim, refs.ndim) if k else dim % (refs.ndim + 1) for k, dim in enumerate(call["dims"])]
        if order[0] != 0:
            raise UnsupportedError(MIXES)
        return refs.transpose(order[1:])
    return refs.swapaxes(*(call.axis(call[name], refs.ndim) for name in ("dim0", "dim1")))


def _expand(call: Call) -> Refs:
    refs = call.sample(call["self"])
    if len(call.shapes[0]) != refs.ndim:
        raise UnsupportedError(MIXES)
    return np.broadcast_to(refs, call.shapes[0])


def _repeat(call: Call) -> Refs:
    refs = call.tensor("self")
    first, *times = call["repeats"]
    if first != 1 or len(times) != refs.ndim:
        raise UnsupportedError(MIXES)
    return np.tile(refs, times)


def _slice(call: Call) -> Refs:
    refs = call.tensor("self")
    start, end, step = call["start"], call["end"], call["step"]
    if call["dim"] % (refs.ndim + 1) == 0:
        if start not in (None, 0) or step != 1:  # the walker compares the number of samples
            raise UnsupportedError(MIXES)
        return refs
    return refs[(slice(None),) * call.axis(call["dim"], refs.ndim) + (slice(start, end, step),)]


def _select(call: Call) -> Refs:
    refs = call.tensor("self")
    taken: Refs = refs.take(call["index"], axis=call.axis(call["dim"], refs.ndim))
    return taken


def _index_select(call: Call) -> Refs:
    refs = call.tensor("self")
    return refs.take(call.constant("index").astype(np.int64), axis=call.axis(call["dim"], refs.ndim))


def _index(call: Call) -> Refs:
    refs = call.tensor("self")
    given = [(dim, index) for dim, index in enumerate(call["indices"]) if index is not None]
    if len(given) != 1 or isinstance(given[0][1], np.ndarray):
        raise UnsupportedError("takes values by more than one list of indices; use one, or slices")
    ((dim, index),) = given
    places = as_array(index)
    chosen = np.flatnonzero(places) if str(index.dtype) == "torch.bool" else places.astype(np.int64)
    return refs.take(chosen, axis=call.axis(dim, refs.ndim))


def _flip(call: Call) -> Refs:
    refs = call.tensor("self")
    return np.flip(refs, tuple(call.axis(dim, refs.ndim) for dim in call["dims"]))


def _roll(call: Call) -> Refs:
    refs = call.tensor("self")
    if not call["dims"]:
        raise UnsupportedError(MIXES)
    rolled: Refs = np.roll(refs, call["shifts"], [call.axis(dim, refs.ndim) for dim in call["dims"]])
    return rolled


def _pad(call: Call) -> Refs:
    refs = call.tensor("self")
    pads = call["pad"]
    if min(pads) < 0 or len(pads) > 2 * refs.ndim:
        raise UnsupportedError("removes values, or pads the samples; use slices")
    widths = [(0, 0)] * refs.ndim
    for number, pair in enumerate(zip(pads[::2], pads[1::2], strict=True), 1):
        widths[-number] = pair
    return np.pad(refs, widths, constant_values=call.graph.constant(float(call["value"])))


def _cat(call: Call) -> Refs:
    parts = [call.sample(part) for part in call["tensors"]]
    return np.concatenate(parts, call.axis(call["dim"], parts[0].ndim))


def _split(call: Call) -> tuple[Refs, ...]:
    refs = call.tensor("self")
    axis = call.axis(call["dim"], refs.ndim)
    ends = np.cumsum([shape[axis] for shape in call.shapes])
    return tuple(np.split(refs, ends[:-1], axis))


def _unbind(call: Call) -> tuple[Refs, ...]:
    refs = call.tensor("self")
    return tuple(np.moveaxis(refs, call.axis(call["dim"], refs.ndim), 0))


def _filled(call: Call) -> Refs:
    values = {"zeros_like": 0.0, "ones_like": 1.0, "zeros": 0.0, "ones": 1.0}
    value = values[call.name] if call.name in values else float(call["fill_value"])
    return call.graph.constant(np.full(call.shapes[0], value))


def _upsample(call: Call) -> Refs:
    refs = call.tensor("input")
    _, *sizes = call.shapes[0]
    for axis, size in enumerate(sizes, 1):
        if size % refs.shape[axis]:
            raise UnsupportedError("scales by a factor that is not whole")
        refs = refs.repeat(size // refs.shape[axis], axis)
    return refs


MOVES: Mapping[str, Callable[[Call], Refs | tuple[Refs, ...]]] = {
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze"), _reshape),
    **dict.fromkeys(("clone", "detach", "alias", "contiguous", "lift_fresh_copy", "dropout", "_to_copy"), _same),
    **dict.fromkeys(("permute", "transpose"), _permute),
    "expand": _expand,
    "repeat": _repeat,
    "slice": _slice,
    "select": _select,
    "index_select": _index_select,
    "index": _index,
    "flip": _flip,
    "roll": _roll,
    "constant_pad_nd": _pad,
    "cat": _cat,
    **dict.fromkeys(("split", "split_with_sizes", "chunk"), _split),
    "unbind": _unbind,
    **dict.fromkeys(("full", "full_like", "zeros", "zeros_like", "ones", "ones_like"), _filled),
    "upsample_nearest2d": _upsample,
}
