"""Index arithmetic of convolutions and pooling: which scalars of a channel each output position reads."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.network.importing.problems import UnsupportedError

PADDING = -1
BEYOND = -2  # the padding: where a window rounded up by ceil_mode ends


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows of a convolution or a pooling operator, over any number of spatial axes.

    Attributes
    ----------
    kernel, strides, dilations : tuple of int
        One for each spatial axis.
    pads : tuple of (int, int)
        Padding before and after, for each spatial axis.
    ceil_mode : bool
        Whether a last window that is cut off by the end counts, if it starts before the padding after.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    ceil_mode: bool = False

    @classmethod
    def of(
        cls,
        kernel: Sequence[int],
        strides: Sequence[int] = (),
        pads: Sequence[tuple[int, int]] = (),
        dilations: Sequence[int] = (),
        *,
        ceil_mode: bool = False,
    ) -> Windows:
        """Return windows with strides and dilations of 1 and no padding where these are left out."""
        ones = (1,) * len(kernel)
        padding = tuple((before, after) for before, after in pads) or ((0, 0),) * len(kernel)
        return cls(tuple(kernel), tuple(strides) or ones, tuple(dilations) or ones, padding, ceil_mode)

    def outputs(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the number of positions on each spatial axis of an image; UnsupportedError if there are none."""
        sizes = []
        for size, kernel, stride, dilation, (before, after) in zip(
            shape, self.kernel, self.strides, self.dilations, self.pads, strict=True
        ):
            room = size + before + after - dilation * (kernel - 1) - 1
            count = (-(-room // stride) if self.ceil_mode else room // stride) + 1
            if self.ceil_mode and (count - 1) * stride >= size + before:
                count -= 1
            if min(kernel, stride, dilation) < 1 or min(before, after) < 0 or room < 0 or count < 1:
                raise UnsupportedError("has windows that do not fit its input; export the model again")
            sizes.append(count)
        return tuple(sizes)

    def positions(self, shape: Sequence[int]) -> NDArray[np.int64]:
        """Return the flat index that each tap of each window reads, shape (positions, taps); PADDING or BEYOND if none.

        Parameters
        ----------
        shape : sequence of int
            The spatial axes of one channel.
        """
        axes = len(self.kernel)
        outputs = self.outputs(shape)
        flat = np.zeros((1,) * (2 * axes), np.int64)
        outside = np.zeros((1,) * (2 * axes), np.int64)
        for axis in range(axes):
            steps = np.arange(outputs[axis])[:, None] * self.strides[axis]
            taps = np.arange(self.kernel[axis]) * self.dilations[axis]
            before, after = self.pads[axis]
            place = steps + taps - before
            beyond = place >= shape[axis] + after
            padding = (place < 0) | (place >= shape[axis])
            wide = [1] * (2 * axes)
            wide[axis], wide[axes + axis] = place.shape
            flat = flat * shape[axis] + place.reshape(wide)
            outside = np.minimum(outside, np.where(beyond, BEYOND, np.where(padding, PADDING, 0)).reshape(wide))
        found = np.where(outside < 0, outside, flat)
        return found.reshape(math.prod(outputs), math.prod(self.kernel))


def convolution(weights: NDArray[Any], shape: Sequence[int], windows: Windows, groups: int) -> sparse.csr_array:
    """Return the matrix of a convolution, from flattened channels x spatial axes to the same of its outputs.

    Parameters
    ----------
    weights : ndarray, shape (outputs, channels / groups, *kernel)
        The filters; rows of the matrix have no entries for weights of 0.
    shape : sequence of int
        Channels and spatial axes of the input.
    windows : Windows
        The windows.
    groups : int
        Number of groups of channels.
    """
    channels, *spatial = shape
    size = math.prod(spatial)
    reads = windows.positions(spatial)
    kept = reads >= 0
    filters = weights.reshape(weights.shape[0], -1)
    taps = reads.shape[1]
    parts = []
    for output, filter_ in enumerate(filters):
        first = output // (len(filters) // groups) * (channels // groups)
        used = np.flatnonzero(filter_)
        tap, channel = used % taps, first + used // taps
        valid = kept[:, tap]
        columns = (reads[:, tap] + channel * size)[valid]
        values = np.broadcast_to(filter_[used], valid.shape)[valid]
        parts.append((values, columns, valid.sum(axis=1)))
    return _stacked(parts, channels * size)


def convolution_connections(weights: NDArray[Any], shape: Sequence[int], windows: Windows) -> int:
    """Return how many connections `convolution` makes, without making them."""
    reads = windows.positions(shape[1:]) >= 0
    filters = weights.reshape(-1, reads.shape[1]) != 0
    return int(filters.sum(axis=0) @ reads.sum(axis=0))


def pooling(shape: Sequence[int], windows: Windows, *, mean: bool, count_padding: bool = False) -> sparse.csr_array:
    """Return the matrix of a pooling operator, from flattened channels x spatial axes to the same of its outputs.

    Parameters
    ----------
    shape : sequence of int
        Channels and spatial axes of the input.
    windows : Windows
        The windows; one that holds padding alone is an UnsupportedError.
    mean : bool
        Whether weights are 1 / (taps of the window) instead of 1.
    count_padding : bool, optional
        Whether taps of the padding are counted.
    """
    channels, *spatial = shape
    size = math.prod(spatial)
    reads = windows.positions(spatial)
    kept = reads >= 0
    counts = kept.sum(axis=1)
    if not counts.all():
        raise UnsupportedError("has windows that hold padding alone; export the model with less padding")
    taps = (reads > BEYOND).sum(axis=1) if count_padding else counts
    values = np.repeat(1 / taps if mean else np.ones(len(taps)), counts)
    columns = reads[kept]
    return _stacked(zip(repeat(values), (columns + k * size for k in range(channels)), repeat(counts)), channels * size)


def _stacked(
    parts: Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]
    | Sequence[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]],
    width: int,
) -> sparse.csr_array:
    """Stack rows that are given as (values, columns, entries of each row)."""
    index = np.int32 if width <= np.iinfo(np.int32).max else np.int64
    values, columns, counts = zip(*((v, c.astype(index), n) for v, c, n in parts), strict=True)
    indptr = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    return sparse.csr_array((np.concatenate(values), np.concatenate(columns), indptr), shape=(indptr.size - 1, width))
