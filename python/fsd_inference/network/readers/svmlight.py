"""Inputs in svmlight (LIBSVM) files: lines of a label and FEATURE:VALUE pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.errors import FileFormatError
from fsd_inference.network.checks import MAX_WIDTH, as_float32, shown
from fsd_inference.network.inputs import check_shape, inputs_from_csr
from fsd_inference.network.readers.parts import Part, stacked
from fsd_inference.network.sparse_arrays import ascends_strictly
from fsd_inference.network.tsv import numbered_lines, parse_number

_LINES = 1 << 14  # parsed at once

Line = tuple[str, list[str]]
"""Location and pairs of a line."""


@dataclass(frozen=True, slots=True)
class _Samples:
    """The samples of a file; `indices` are its feature numbers, counted from 0 or from 1."""

    file: Path
    indptr: NDArray[np.int64]
    indices: NDArray[np.int64]
    values: NDArray[np.float32]

    def wrong(self, entry: int, says: str) -> FileFormatError:
        """Return an error that names the line of an entry."""
        sample = int(np.searchsorted(self.indptr, entry, "right")) - 1
        where, _ = next(islice(_lines(self.file), sample, None))
        return FileFormatError(f"{where}: {says}")

    def inputs(self, first: int, width: int) -> sparse.csr_array:
        """Return the samples in the form of `load_inputs`; raise FileFormatError for a feature beyond `width`."""
        beyond = self.indices > width - 1 + first
        if beyond.any():
            entry = int(np.argmax(beyond))
            counted = "" if first else ", as there is a feature 0"
            says = f"feature {int(self.indices[entry])} is not in {first} to {width - 1 + first}{counted}"
            raise self.wrong(entry, says)
        return inputs_from_csr(self.to_csr(first, width), str(self.file))

    def to_csr(self, first: int, width: int) -> sparse.csr_array:
        """Return the samples with features counted from `first`."""
        unsorted = sparse.csr_array(
            (self.values, self.indices - first, self.indptr), shape=(self.indptr.size - 1, width), copy=True
        )
        if ascends_strictly(self.indptr, self.indices):
            return unsorted
        csr = unsorted.copy()
        csr.sort_indices()
        again = np.flatnonzero(csr.indices[1:] == csr.indices[:-1]) + 1
        again = again[~np.isin(again, csr.indptr)]
        if again.size:
            entry = int(again[0])
            raise self.wrong(entry, f"feature {int(csr.indices[entry]) + first} occurs for the second time")
        return csr


def read_svmlight(files: Sequence[Path], features: int | None) -> sparse.csr_array:
    """Read the inputs in svmlight files, plain or gzip; labels, qid and comments are ignored.

    Features are counted from 1, or from 0 if any of the files has a feature 0. If `features` is None, the largest
    feature number determines how many there are.

    Raises
    ------
    FileFormatError
        If a line is invalid; the message names it.
    """
    parts = [_read(file) for file in files]
    first, width = _counting(parts, features, str(files[0]))
    return stacked((part.file, part.inputs(first, width)) for part in parts)


def svmlight_parts(files: Sequence[Path], features: int | None) -> Iterator[Part]:
    """Yield the inputs of svmlight files one by one as `read_svmlight` reads them, which needs each file twice.

    Raises
    ------
    FileFormatError
        If a line is invalid; the message names it.
    """
    first, width = _counting((_read(file) for file in files), features, str(files[0]))
    for file in files:
        yield file, _read(file).inputs(first, width)


def _counting(parts: Iterable[_Samples], features: int | None, what: str) -> tuple[int, int]:
    """Return the number of the first feature, and how many features there are."""
    first, largest = 1, 0
    for part in parts:
        if part.indices.size:
            first, largest = min(first, int(part.indices.min())), max(largest, int(part.indices.max()))
    width = max(largest + 1 - first, 1) if features is None else features
    check_shape((1, width), None, what)
    return first, width


def _read(file: Path) -> _Samples:
    counts, blocks = [np.zeros(1, np.int64)], [np.empty((0, 2))]
    lines = _lines(file)
    while batch := list(islice(lines, _LINES)):
        counts.append(np.array([len(pairs) for _, pairs in batch]))
        blocks.append(_parsed(batch))
    if len(counts) == 1:
        raise FileFormatError(f"{file} is empty")
    numbers = np.concatenate(blocks)
    indptr = np.cumsum(np.concatenate(counts))
    return _Samples(file, indptr, numbers[:, 0].astype(np.int64), as_float32(numbers[:, 1]))


def _lines(file: Path) -> Iterator[Line]:
    """Yield location and pairs of each line that holds a sample."""
    for where, line in numbered_lines(file):
        label, *pairs = line.partition("#")[0].split() or [""]
        if not label:
            continue
        if ":" in label:
            raise FileFormatError(f"{where}: the line starts with {shown(label)}, not with a label such as 0")
        yield where, pairs[1:] if pairs and pairs[0].startswith("qid:") else pairs


def _parsed(lines: list[Line]) -> NDArray[np.float64]:
    """Return feature and value of all pairs, shape (pairs, 2)."""
    pairs = [pair for _, pairs in lines for pair in pairs]
    if not pairs:
        return np.empty((0, 2))
    try:
        numbers = np.loadtxt(pairs, np.float64, None, ":", ndmin=2)
    except ValueError:
        raise _first_wrong_pair(lines) from None
    features = numbers[:, 0]
    is_feature = (features >= 0) & (features <= MAX_WIDTH) & (np.trunc(features) == features)
    is_right = numbers.shape[1] == 2 and is_feature.all()
    if not is_right or not np.isfinite(as_float32(numbers[:, 1])).all():
        raise _first_wrong_pair(lines)
    return numbers


def _first_wrong_pair(lines: Iterable[Line]) -> FileFormatError:
    for where, pairs in lines:
        for pair in pairs:
            numbers = [parse_number(field) for field in pair.split(":")]
            if len(numbers) != 2 or numbers[0] is None or numbers[1] is None:
                return FileFormatError(f"{where}: {shown(pair)} is not FEATURE:VALUE")
            feature, value = numbers[0], numbers[1]
            if not (feature.is_integer() and 0 <= feature <= MAX_WIDTH):
                return FileFormatError(f"{where}: feature {feature:.17g} is not a whole number in 0 to {MAX_WIDTH}")
            if not np.isfinite(as_float32(np.array(value))):
                written = pair.partition(":")[2]
                return FileFormatError(f"{where}: value {written} is not a finite float32 number")
    raise AssertionError("a pair is wrong")
