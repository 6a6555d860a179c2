"""Networks in other people's formats."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.errors import FileFormatError, InputError
from fsd_inference.network.graph_challenge import official_activation, official_bias
from fsd_inference.network.layer import Layer
from fsd_inference.network.model import Network
from fsd_inference.network.source import LayerSource

_FILE_NAME = re.compile(r"n([1-9]\d{0,8})-l([1-9]\d{0,8})\.tsv")
_LINE = np.dtype([("input", np.int64), ("output", np.int64), ("weight", np.float64)])


def graph_challenge_folder(folder: str | os.PathLike[str], bias: float | None = None) -> Network:
    """Return the network in a Graph Challenge folder; each layer is parsed when it is asked for.

    Parameters
    ----------
    folder : path-like
        Holds ``n1024-l1.tsv``, ``n1024-l2.tsv``...: a line a connection, with its input and output, both counted from
        1, and its weight, separated by tabs. Files with other names are passed over.
    bias : float, optional
        Of all neurons; the Graph Challenge's own if not given and the network has an official size.

    Raises
    ------
    FileFormatError
        If there are no such files, one is missing or sizes differ; when a layer is read, if a line is wrong.
    InputError
        If no bias is given and the size is not an official one.
    """
    place = Path(folder)
    try:
        found = sorted(
            (int(match[1]), int(match[2]), entry)
            for entry in place.iterdir()
            if (match := _FILE_NAME.fullmatch(entry.name))
        )
    except OSError as error:
        raise FileFormatError(f"{place} cannot be read: {error.strerror or error}") from error
    if not found:
        raise FileFormatError(f"{place} has no files named like n1024-l1.tsv")
    neurons = found[0][0]
    if found[-1][0] != neurons:
        raise FileFormatError(
            f"{place} has layers of {neurons} and of {found[-1][0]} neurons; keep one network a folder"
        )
    for expected, (_, number, file) in enumerate(found, 1):
        if number != expected:
            raise FileFormatError(f"{file} is there, but n{neurons}-l{expected}.tsv is not")
    if bias is None:
        bias = official_bias(neurons)
    if bias is None:
        raise InputError(
            f"{place} has layers of {neurons} neurons, which is no official size; say which bias they have"
        )
    source = _TsvLayers([file for *_, file in found], neurons, bias)
    return Network.from_source(source, name=f"n{neurons}-l{len(found)}")


class _TsvLayers(LayerSource):
    def __init__(self, files: list[Path], neurons: int, bias: float) -> None:
        self.widths = (neurons,) * (len(files) + 1)
        self._files = files
        self._neurons = neurons
        with np.errstate(over="ignore"):
            self._bias = np.full(1, bias, np.float32)
        if not np.isfinite(self._bias).all():
            raise InputError(f"the bias must be a finite float32 number, not {bias}")

    def layer(self, index: int) -> Layer:
        """Parse layer `index`."""
        file, neurons = self._files[index], self._neurons
        lines = _read_lines(file)
        for name in ("input", "output"):
            wrong = np.flatnonzero((lines[name] < 1) | (lines[name] > neurons))
            if wrong.size:
                row = int(wrong[0])
                raise FileFormatError(
                    f"{file}, connection {row + 1}: {name} {lines[name][row]} is not in 1 to {neurons}"
                )
        with np.errstate(over="ignore"):
            weights = lines["weight"].astype(np.float32)
        wrong = np.flatnonzero(~np.isfinite(weights))
        if wrong.size:
            row = int(wrong[0])
            raise FileFormatError(
                f"{file}, connection {row + 1}: weight {lines['weight'][row]} is not a finite float32 number"
            )
        csr = sparse.coo_array((weights, (lines["output"] - 1, lines["input"] - 1)), shape=(neurons, neurons)).tocsr()
        if csr.nnz != lines.size:
            raise FileFormatError(f"{file} repeats a connection: {lines.size} lines name {csr.nnz} different ones")
        return Layer(csr, self._bias, official_activation())


def _read_lines(file: Path) -> NDArray[np.void]:
    try:
        with file.open("rb") as stream:
            if all(line.isspace() for line in stream):  # which loadtxt would only warn of
                raise FileFormatError(f"{file} is empty")
        lines: NDArray[np.void] = np.loadtxt(file, _LINE, comments=None, delimiter="\t", ndmin=1, encoding="latin-1")
    except OSError as error:
        raise FileFormatError(f"{file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise FileFormatError(f"{file} has a line that is not input, output and weight: {error}") from error
    return lines
