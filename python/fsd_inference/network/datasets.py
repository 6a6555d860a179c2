"""Real input data that needs no download: handwritten digits of scikit-learn."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.errors import InputError
from fsd_inference.network.checks import whole_number
from fsd_inference.network.sparse_arrays import csr_from_blocks

_SIDE = 8  # scikit-learn's digits are 8 x 8 pixels ...
_LEVELS = 16  # ... of 0 to 16
# A pixel is set if its ink exceeds this share of full ink. At 0.8 about 12% of the pixels are set, and slightly fewer
# than half of the digits are still alive after 120 layers of the Graph Challenge networks of any size.
_INK = 0.8
_BLOCK_PIXELS = 1 << 23


def digits(neurons: int, samples: int, *, seed: int = 0) -> sparse.csr_array:
    """Return the 1,797 handwritten digits of scikit-learn, scaled up bilinearly and thresholded to 0 and 1.

    Sample i >= 1,797 is a copy of sample i mod 1,797, shifted by up to an eighth of the side in each direction.

    Parameters
    ----------
    neurons : int
        Number of features, the pixels in row-major order: a square number, at least 64.
    samples : int
        Number of samples, starting from the first.
    seed : int, optional
        Random seed of the shifts.

    Returns
    -------
    csr_array of float32, shape (samples, neurons)

    Raises
    ------
    InputError
        If a number is out of range, or scikit-learn is not installed.

    Examples
    --------
    >>> import fsd_inference as fsd
    >>> fsd.digits(1024, 50).shape
    (50, 1024)
    """
    neurons = whole_number(neurons, "the neurons of digits")
    samples = whole_number(samples, "the number of samples")
    seed = whole_number(seed, "a seed")
    side = math.isqrt(max(neurons, 0))
    if side * side != neurons or side < _SIDE:
        raise InputError(f"digits need a square number of neurons, at least {_SIDE * _SIDE}, not {neurons}")
    if samples < 1:
        raise InputError(f"digits need at least one sample, not {samples}")
    if seed < 0:
        raise InputError(f"a seed must be at least 0, not {seed}")
    images = _load_images()
    most = side // _SIDE
    shifts = np.random.default_rng(seed).integers(-most, most, (samples, 2), endpoint=True)
    shifts[: len(images)] = 0
    step = max(1, _BLOCK_PIXELS // neurons)
    blocks = (
        _shifted(_enlarge(images.take(np.arange(start, end), axis=0, mode="wrap"), side), shifts[start:end])
        for start, end in ((start, min(start + step, samples)) for start in range(0, samples, step))
    )
    return csr_from_blocks((block.reshape(len(block), neurons) for block in blocks), neurons, "the digits")


def _load_images() -> NDArray[np.float64]:
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise InputError("digits need scikit-learn; install it with: pip install 'fsd-inference[local]'") from error
    images: NDArray[np.float64] = load_digits().images
    return images


def _enlarge(images: NDArray[np.float64], side: int) -> NDArray[np.bool_]:
    """Scale images (count, 8, 8) up to side x side and return which pixels exceed the ink threshold.

    Coordinates are integers in units of 1 / (2 side) of an original pixel, so that the arithmetic is exact.
    """
    unit = 2 * side
    centre = np.clip((2 * np.arange(side) + 1) * _SIDE - side, 0, (_SIDE - 1) * unit)
    left = np.minimum(centre // unit, _SIDE - 2)
    right_share = centre - left * unit
    weights = np.zeros((side, _SIDE))
    weights[np.arange(side), left] = unit - right_share
    weights[np.arange(side), left + 1] = right_share
    return np.asarray(weights @ images @ weights.T > _INK * _LEVELS * unit * unit)


def _shifted(images: NDArray[np.bool_], shifts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return images shifted down and right by `shifts` (count, 2), filled with empty pixels."""
    moved = np.zeros_like(images)
    side = images.shape[1]
    for image, target, (down, right) in zip(images, moved, shifts.tolist(), strict=True):
        rows, columns = slice(max(down, 0), side + min(down, 0)), slice(max(right, 0), side + min(right, 0))
        target[rows, columns] = image[
            rows.start - down : rows.stop - down, columns.start - right : columns.stop - right
        ]
    return moved
