"""ONNX operators that move values without computing: they index the references of a tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from fsd_inference.network.importing.lowering import Refs
from fsd_inference.network.importing.onnx_node import AGAIN, MIXES, Node, Tensor, feature_axes, read
from fsd_inference.network.importing.onnx_tensors import FLOATS
from fsd_inference.network.importing.problems import UnsupportedError

_WHOLE = (1 << 31) - 1  # the smallest number that exporters write for the end of an axis


def keep(node: Node) -> list[Tensor]:
    """Return the input of a node that changes nothing at inference."""
    return [node.tensor()]


def cast(node: Node) -> list[Tensor]:
    """Return the input of a cast between types of floats."""
    if node.attributes["to"] not in FLOATS:
        raise UnsupportedError(f"casts to another type than {', '.join(FLOATS)}; leave it out")
    return [node.tensor()]


def dropout(node: Node) -> list[Tensor]:
    """Return the input of a dropout."""
    training = node.constant(2)
    if training is not None and training.any():
        raise UnsupportedError("is in training mode; export the model for inference")
    node.single_output()
    return [node.tensor()]


def flatten(node: Node) -> list[Tensor]:
    """Return the samples as vectors."""
    refs = node.refs()
    if node.attributes["axis"] not in (1, -refs.ndim):
        raise UnsupportedError(MIXES)
    return [Tensor(refs.reshape(-1))]


def reshape(node: Node) -> list[Tensor]:
    """Return the samples in another shape."""
    refs, target = node.refs(), node.whole_numbers(1)
    if target is None:
        raise UnsupportedError(f"has no shape; {AGAIN}")
    return [Tensor(refs.reshape(_sizes(target, node.batch, refs.shape, bool(node.attributes.get("allowzero", 0)))))]


def _sizes(target: Sequence[int], batch: int | None, features: Sequence[int], allow_zero: bool) -> tuple[int, ...]:
    """Return the shape of a sample for the shape that Reshape is given."""
    if not target or (allow_zero and 0 in target) or min(target) < -1 or target.count(-1) > 1:
        raise UnsupportedError(MIXES)
    sizes = [features[k] if size == 0 and k < len(features) else size for k, size in enumerate(target[1:])]
    if target[0] not in (0, -1) and (batch is None or target[0] != batch):
        raise UnsupportedError(MIXES)
    known = math.prod(size for size in sizes if size != -1)
    if known and -1 in sizes:
        sizes[sizes.index(-1)] = math.prod(features) // known
    if 0 in sizes or math.prod(sizes) != math.prod(features):
        raise UnsupportedError(MIXES)
    return tuple(sizes)


def squeeze(node: Node) -> list[Tensor]:
    """Return the samples without axes of size 1."""
    refs, axes = node.refs(), node.axes(1, 13)
    if axes is None:
        raise UnsupportedError(f"does not name its axes, which could be that of the samples; {AGAIN} with axes")
    chosen = feature_axes(axes, refs.ndim + 1)
    if any(refs.shape[axis] != 1 for axis in chosen):
        raise UnsupportedError(f"removes an axis that is not of size 1; {AGAIN}")
    return [Tensor(refs.squeeze(tuple(chosen)))]


def unsqueeze(node: Node) -> list[Tensor]:
    """Return the samples with more axes of size 1."""
    refs, axes = node.refs(), node.axes(1, 13)
    if axes is None:
        raise UnsupportedError(f"does not name its axes; {AGAIN} with axes")
    return [Tensor(np.expand_dims(refs, tuple(feature_axes(axes, refs.ndim + len(axes) + 1))))]


def transpose(node: Node) -> list[Tensor]:
    """Return the samples with their axes in another order."""
    refs = node.refs()
    order = node.attributes.get("perm", list(range(refs.ndim, -1, -1)))
    if order[0] != 0:
        raise UnsupportedError(MIXES)
    return [Tensor(refs.transpose(feature_axes(order[1:], refs.ndim + 1)))]


def slice_(node: Node) -> list[Tensor]:
    """Return parts of the axes of samples."""
    refs = node.refs()
    if node.opset < 10:
        starts, ends, axes, steps = (
            node.attributes["starts"],
            node.attributes["ends"],
            node.attributes.get("axes"),
            None,
        )
    else:
        starts, ends, axes, steps = (node.whole_numbers(index) for index in range(1, 5))
    named = [axis % (refs.ndim + 1) for axis in (range(len(starts)) if axes is None else axes)]
    parts = [slice(None)] * (refs.ndim + 1)
    for axis, start, end, step in zip(named, starts, ends, steps or [1] * len(starts), strict=True):
        if axis == 0:
            if (start, step) != (0, 1) or end < _WHOLE:
                raise UnsupportedError(MIXES)
            continue
        # An end before the first element is written as a negative number, which Python counts from the back.
        parts[axis] = slice(start, None if step < 0 and end < -refs.shape[axis - 1] else end, step)
    return [_filled(refs[tuple(parts[1:])])]


def split(node: Node) -> list[Tensor]:
    """Return parts of one axis of samples."""
    refs = node.refs()
    (axis,) = feature_axes([node.attributes["axis"]], refs.ndim + 1)
    sizes = node.attributes.get("split") if node.opset < 13 else node.whole_numbers(1)
    if sizes is None:
        each = -(-refs.shape[axis] // node.outputs)
        sizes = [min(each, refs.shape[axis] - k * each) for k in range(node.outputs)]
    if sum(sizes) != refs.shape[axis] or len(sizes) != node.outputs:
        raise UnsupportedError(f"splits an axis of {refs.shape[axis]} into {sizes}; {AGAIN}")
    return [_filled(part) for part in np.split(refs, np.cumsum(sizes)[:-1], axis)]


def pad(node: Node) -> list[Tensor]:
    """Return the samples with constants around them."""
    refs = node.refs()
    if node.attributes["mode"] not in (b"constant", b"reflect", b"edge", b"wrap"):
        raise UnsupportedError(f"pads in an unknown mode; {AGAIN}")
    if node.opset < 11:
        pads, fill = node.attributes["pads"], node.attributes["value"]
    else:
        value = node.constant(2)
        pads, fill = node.whole_numbers(1) or [], 0.0 if value is None else float(value.item())
    axes = node.whole_numbers(3) if node.opset >= 18 else None
    named = list(range(refs.ndim + 1)) if axes is None else [axis % (refs.ndim + 1) for axis in axes]
    widths = [(0, 0)] * (refs.ndim + 1)
    for axis, before, after in zip(named, pads[: len(named)], pads[len(named) :], strict=True):
        widths[axis] = before, after
    if widths[0] != (0, 0):
        raise UnsupportedError(MIXES)
    cut = tuple(
        slice(max(0, -before), size - max(0, -after))
        for size, (before, after) in zip(refs.shape, widths[1:], strict=True)
    )
    wide = [(max(0, before), max(0, after)) for before, after in widths[1:]]
    node.graph.reserve(math.prod(size + sum(pads) for size, pads in zip(refs.shape, wide, strict=True)))
    mode = node.attributes["mode"].decode()
    if mode == "constant":
        return [_filled(np.pad(refs[cut], wide, constant_values=int(node.graph.constant(fill))))]
    return [_filled(np.pad(refs[cut], wide, mode=mode))]


def concat(node: Node) -> list[Tensor]:
    """Return tensors and constants side by side."""
    ranks = {read(value).ndim for value in node.inputs if isinstance(value, Tensor)}
    if len(ranks) != 1:
        raise UnsupportedError(f"has inputs with different numbers of axes; {AGAIN}")
    rank = ranks.pop() + 1
    (axis,) = feature_axes([node.attributes["axis"]], rank)
    parts: list[Refs] = []
    for index, value in enumerate(node.inputs):
        if isinstance(value, Tensor):
            parts.append(read(value))
            continue
        constant = node.required(index)
        if constant.ndim != rank or constant.shape[0] != 1 or node.batch not in (None, 1):
            raise UnsupportedError("has a constant that is not one for all samples; make its first axis of size 1")
        parts.append(node.graph.constant(constant[0]))
    node.graph.reserve(sum(part.size for part in parts))
    return [Tensor(np.concatenate(parts, axis))]


def expand(node: Node) -> list[Tensor]:
    """Return the samples with axes of size 1 repeated."""
    refs, target = node.refs(), node.whole_numbers(1)
    if target is None or len(target) > refs.ndim + 1:
        raise UnsupportedError(MIXES)
    sizes = [1] * (refs.ndim + 1 - len(target)) + target
    if sizes[0] not in {1, node.batch or 0}:
        raise UnsupportedError(MIXES)
    shape = np.broadcast_shapes(refs.shape, tuple(sizes[1:]))
    node.graph.reserve(math.prod(shape))
    return [Tensor(np.broadcast_to(refs, shape))]


def tile(node: Node) -> list[Tensor]:
    """Return the samples repeated along their axes."""
    refs, repeats = node.refs(), node.whole_numbers(1) or []
    if len(repeats) != refs.ndim + 1 or repeats[0] != 1:
        raise UnsupportedError(MIXES)
    node.graph.reserve(refs.size * math.prod(repeats))
    return [_filled(np.tile(refs, repeats[1:]))]


def gather(node: Node) -> list[Tensor]:
    """Return chosen entries of one axis of samples."""
    refs = node.refs()
    (axis,) = feature_axes([node.attributes["axis"]], refs.ndim + 1)
    indices = node.required(1)
    if indices.dtype.kind != "i":
        raise UnsupportedError(f"has indices that are not whole numbers; {AGAIN}")
    node.graph.reserve(refs.size // refs.shape[axis] * indices.size)
    return [_filled(np.take(refs, indices, axis))]


def _filled(refs: Refs) -> Tensor:
    if not refs.size:
        raise UnsupportedError(f"makes a tensor without values; {AGAIN}")
    return Tensor(refs)


SHAPES: dict[str, Callable[[Node], list[Tensor]]] = {
    "Cast": cast,
    "Concat": concat,
    "Dropout": dropout,
    "Expand": expand,
    "Flatten": flatten,
    "Gather": gather,
    "Identity": keep,
    "Pad": pad,
    "Reshape": reshape,
    "Slice": slice_,
    "Split": split,
    "Squeeze": squeeze,
    "Tile": tile,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
