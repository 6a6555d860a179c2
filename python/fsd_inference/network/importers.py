"""Importers for networks in foreign formats: the text files of the Graph Challenge."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from fsd_inference.errors import FileFormatError, InputError
from fsd_inference.network.checks import dense_array, rounded_float32
from fsd_inference.network.graph_challenge import official_activation, official_bias
from fsd_inference.network.layer import Layer
from fsd_inference.network.model import Network
from fsd_inference.network.source import LayerSource
from fsd_inference.network.tsv import Entries

_FILE_NAME = re.compile(r"n([1-9]\d{0,8})-l([1-9]\d{0,8})\.tsv(?:\.gz)?", re.ASCII)
# Names that a layer file gets from unpackers, browsers, editors or other systems, such as "n1024-l3.tsv (1)".
_LOOKS_LIKE_A_LAYER = re.compile(
    r"[\W_]*(?:copy of )?(?:n?(?:eurons?)?[\W_]*\d+[\W_]*)?l(?:ayers?)?[\W_]*\d+[a-z]?"
    r"(?:[\W_]*(?:copy|\(\d+\)).*|\W*|\..*)",
    re.IGNORECASE,
)


def graph_challenge_folder(folder: str | os.PathLike[str], bias: float | None = None) -> Network:
    """Open the network in a Graph Challenge folder; each layer is parsed on access.

    Parameters
    ----------
    folder : path-like
        Holds ``n1024-l1.tsv``, ``n1024-l2.tsv``..., or the same with ``.gz``. Each line is a connection: its input and
        output, both counted from 1, and its weight, separated by tabs or spaces. Other files, hidden files and
        directories are ignored; a file that looks like a layer but has a different name is an error.
    bias : float, optional
        Bias of all neurons; defaults to that of the Graph Challenge for networks of an official size.

    Raises
    ------
    FileFormatError
        If there are no such files, one is missing, duplicated or misnamed, or sizes differ; on access to a layer, if a
        line is invalid.
    InputError
        If no bias is given and the size is not an official one, or the bias is not a finite float32.
    """
    place = Path(folder)
    files = _layer_files(place)
    neurons = files[0][0]
    if bias is None:
        bias = official_bias(neurons)
    if bias is None:
        raise InputError(f"{place} has layers of {neurons} neurons, which is not an official size; set their bias")
    source = _TsvLayers([file.absolute() for *_, file in files], neurons, bias)
    name, origin = f"n{neurons}-l{len(files)}", f"Graph Challenge folder {place.absolute().name}"
    return Network.from_source(source, name=name, origin=origin)


def is_graph_challenge_file(path: Path) -> bool:
    """Return whether a file is named as a layer of the Graph Challenge."""
    return _FILE_NAME.fullmatch(path.name) is not None


def _layer_files(place: Path) -> list[tuple[int, int, Path]]:
    """Return (neurons, layer number, file) of each layer, in order of the number."""
    try:
        found = sorted(_named(place.iterdir()))
    except OSError as error:
        raise FileFormatError(f"{place} cannot be read: {error.strerror or error}") from error
    if not found:
        raise FileFormatError(f"{place} has no files named like n1024-l1.tsv or n1024-l1.tsv.gz")
    neurons = found[0][0]
    if found[-1][0] != neurons:
        raise FileFormatError(
            f"{place} has layers of {neurons} and of {found[-1][0]} neurons; keep one network per folder"
        )
    for (_, before, one), (_, after, other) in pairwise(found):
        if before == after:
            raise FileFormatError(f"{place} has both {one.name} and {other.name}; keep one of them")
    for expected, (_, number, file) in enumerate(found, 1):
        if number != expected:
            raise FileFormatError(f"{file} exists, but n{neurons}-l{expected}.tsv is missing")
    return found


def _named(entries: Iterable[Path]) -> Iterator[tuple[int, int, Path]]:
    for entry in entries:
        if match := _FILE_NAME.fullmatch(entry.name):
            yield int(match[1]), int(match[2]), entry
        elif not entry.name.startswith(".") and _LOOKS_LIKE_A_LAYER.fullmatch(entry.name) and not entry.is_dir():
            raise FileFormatError(
                f"{entry} looks like a layer but is not named like n1024-l1.tsv or n1024-l1.tsv.gz; "
                "rename it or move it elsewhere"
            )


class _TsvLayers(LayerSource):
    def __init__(self, files: list[Path], neurons: int, bias: float) -> None:
        self.widths = (neurons,) * (len(files) + 1)
        self._files = files
        self._neurons = neurons
        self._bias = rounded_float32(dense_array(bias, "the bias"), "the bias").reshape(-1)
        if self._bias.size != 1:
            raise InputError(f"the bias must be one number for all neurons, not {self._bias.size}")

    def layer(self, index: int) -> Layer:
        """Parse layer `index`."""
        neurons = self._neurons
        entries = Entries(self._files[index], ("input", "output", "weight"), (neurons, neurons))
        csr = entries.to_csr((neurons, neurons), transposed=True)
        return Layer(csr, self._bias, official_activation())
