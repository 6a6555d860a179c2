"""Batches that are stored as several files in a directory."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from scipy import sparse

from fsd_inference.errors import FileFormatError, InputError
from fsd_inference.network.checks import MAX_WIDTH
from fsd_inference.network.inputs import check_shape, inputs_from_csr

Part = tuple[Path, sparse.csr_array]
"""A file and its samples."""


def files_in(folder: Path) -> list[Path]:
    """Return the files in a directory in natural order, part-2 before part-10.

    Names that start with ``.`` or ``_``, such as ``_SUCCESS``, are ignored: they are other tools' bookkeeping.

    Raises
    ------
    FileFormatError
        If it has no such files, or contains a directory.
    """
    try:
        found = sorted((entry for entry in folder.iterdir() if entry.name[0] not in "._"), key=_natural)
    except OSError as error:
        raise FileFormatError(f"{folder} cannot be read: {error.strerror or error}") from error
    if not found:
        raise FileFormatError(f"{folder} is a directory without input files")
    for entry in found:
        if entry.is_dir():
            raise FileFormatError(f"{entry} is a directory; put all input files directly into {folder}")
    return found


def stacked(parts: Iterable[Part]) -> sparse.csr_array:
    """Concatenate the samples of several files.

    Raises
    ------
    InputError
        If the numbers of features differ, or there are too many values.
    """
    held: list[sparse.csr_array] = []
    first, values = Path(), 0
    for file, part in parts:
        first = file if not held else first
        if held and part.shape[1] != held[0].shape[1]:
            raise InputError(f"{file} has {part.shape[1]} features per sample, but {first} has {held[0].shape[1]}")
        held.append(part)
        values += part.nnz
        if values > MAX_WIDTH:
            raise InputError(f"the files up to {file} have {values} values other than 0; use at most {MAX_WIDTH}")
    if len(held) == 1:
        return held[0]
    what = f"the batch that begins with {first}"
    check_shape((sum(part.shape[0] for part in held), held[0].shape[1]), None, what)
    return inputs_from_csr(sparse.csr_array(sparse.vstack(held, format="csr")), what)


def _natural(path: Path) -> tuple[list[str | int], str]:
    words = re.split(r"(\d+)", path.name)
    return [int(word) if k % 2 else word for k, word in enumerate(words)], path.name
