"""Accuracy of a classifier: the classes of samples, read from a file, beside what a network predicts."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fsd_inference.errors import FileFormatError, InputError
from fsd_inference.network.checks import shown
from fsd_inference.network.numpy_files import NPY_MAGIC, ZIP_MAGIC, map_npy, read_npz
from fsd_inference.network.tsv import numbered_lines


def load_classes(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read one class per sample.

    Parameters
    ----------
    path : path-like
        An ``.npy`` file, the array ``labels`` of an ``.npz``, or text with one class per line (also with gzip).

    Returns
    -------
    ndarray, shape (samples,)
        Numbers or strings.

    Raises
    ------
    FileFormatError
        If the file is missing or damaged, or does not hold one class per sample.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            start = stream.read(max(len(NPY_MAGIC), len(ZIP_MAGIC)))
    except OSError as error:
        raise FileFormatError(f"{file} cannot be read: {error.strerror or error}") from error
    if start.startswith(NPY_MAGIC):
        classes = map_npy(file)
    elif start.startswith(ZIP_MAGIC):
        arrays = read_npz(file, {"labels"})
        if "labels" not in arrays:
            raise FileFormatError(f"{file} has no array 'labels'; store one class per sample under that name")
        classes = arrays["labels"]
    else:
        classes = np.array([line for _, line in numbered_lines(file)], np.str_)
    if classes.ndim != 1 or classes.dtype.kind not in "biufU":
        raise FileFormatError(
            f"{file} must hold one number or string per sample, not {classes.dtype} values of shape {classes.shape}"
        )
    return classes


def accuracy(outputs: Any, classes: NDArray[Any], labels: ArrayLike | None = None) -> float:
    """Return the fraction of samples whose largest output is that of their class.

    Parameters
    ----------
    outputs : array or sparse array, shape (samples, n_out)
    classes : ndarray, shape (samples,)
        Numbers or strings; ``3``, ``3.0`` and ``"3"`` are the same class.
    labels : array_like, shape (n_out,), optional
        The class of each output; by default its number, from 0.

    Raises
    ------
    InputError
        If the number of classes is not that of the samples, or a class is none of the network's.
    """
    samples, number = outputs.shape
    if classes.shape != (samples,):
        raise InputError(f"{samples:,} samples need as many classes, not {len(classes):,}")
    known = {name: output for output, name in enumerate(_names(range(number) if labels is None else labels))}
    distinct, places = np.unique(classes, return_inverse=True)
    names = _names(distinct)
    for name in names:
        if name not in known:
            raise InputError(f"{shown(name)} is no class of the network, which has {shown(list(known))}")
    expected = np.array([known[name] for name in names])[places]
    return float(np.mean(outputs.argmax(axis=1) == expected))


def _names(classes: Any) -> list[str]:
    """Return classes as text, numbers in a form of their own."""
    values: Iterable[Any] = np.asarray(classes).tolist()
    return [_name(value) for value in values]


def _name(value: Any) -> str:
    try:
        return f"{float(value):.17g}"
    except ValueError:
        return str(value)
