"""Reading of input files: the format is chosen by the first bytes of a file, or by its suffix."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scipy import sparse

from fsd_inference.errors import FileFormatError
from fsd_inference.network.matrix_market import MATRIX_MARKET_MAGIC
from fsd_inference.network.numpy_files import NPY_MAGIC, ZIP_MAGIC
from fsd_inference.network.readers.delimited import read_csv, tsv_parts
from fsd_inference.network.readers.h5ad import read_h5ad
from fsd_inference.network.readers.matrix_market import read_matrix_market_inputs
from fsd_inference.network.readers.npy import read_npy
from fsd_inference.network.readers.npz import read_npz_inputs
from fsd_inference.network.readers.parts import Part, files_in, stacked
from fsd_inference.network.readers.svmlight import read_svmlight, svmlight_parts
from fsd_inference.network.readers.tables import ARROW_MAGIC, read_arrow, read_parquet

ReadParts = Callable[[Sequence[Path], int | None], Iterator[Part]]
ReadTogether = Callable[[Sequence[Path], int | None], sparse.csr_array]


@dataclass(frozen=True, slots=True)
class InputFormat:
    """A format of input files.

    Attributes
    ----------
    suffixes : tuple of str
        Suffixes of its files, in lower case.
    parts : callable
        Reads files one by one, given the number of features or None, and yields each with its samples.
    magic : bytes, optional
        First bytes of its files, which take precedence over the suffix.
    together : callable, optional
        Reads files at once, where that is quicker than one by one, and returns the samples of all.
    """

    suffixes: tuple[str, ...]
    parts: ReadParts
    magic: bytes | None = None
    together: ReadTogether | None = None


def _each(read: Callable[[Path, int | None], sparse.csr_array]) -> ReadParts:
    return lambda files, features: ((file, read(file, features)) for file in files)


def _text(*suffixes: str) -> tuple[str, ...]:
    return tuple(suffix + packed for suffix in suffixes for packed in ("", ".gz"))


INPUT_FORMATS = (
    InputFormat((".npz",), _each(read_npz_inputs), ZIP_MAGIC),
    InputFormat((".npy",), _each(read_npy), NPY_MAGIC),
    InputFormat(_text(".mtx"), _each(read_matrix_market_inputs), MATRIX_MARKET_MAGIC),
    InputFormat(_text(".svm", ".svmlight", ".libsvm"), svmlight_parts, together=read_svmlight),
    InputFormat(_text(".csv"), _each(read_csv)),
    InputFormat(_text(".tsv"), tsv_parts),
    InputFormat((".parquet",), _each(read_parquet), b"PAR1"),
    InputFormat((".arrow", ".feather"), _each(read_arrow), ARROW_MAGIC),
    InputFormat((".h5ad",), _each(read_h5ad), b"\x89HDF\r\n\x1a\n"),
)
_MAGIC_BYTES = max(len(form.magic or b"") for form in INPUT_FORMATS)


def load_inputs(path: str | os.PathLike[str], features: int | None = None) -> sparse.csr_array:
    """Read a batch of samples.

    Parameters
    ----------
    path : path-like
        A file, or a directory of files of one format, read in natural order of their names. Formats by suffix:

        - ``.npz``: a sparse array saved by SciPy or PyData sparse; or the key ``bits``: uint8, each bit a feature of
          0 or 1, from ``np.packbits(x, axis=1)``;
        - ``.npy``, ``.csv``, ``.tsv``, ``.parquet``, ``.arrow``, ``.feather``: dense;
        - ``.mtx``: Matrix Market;
        - ``.svm``, ``.svmlight``, ``.libsvm``: lines of a label and FEATURE:VALUE pairs;
        - ``.h5ad``: the matrix X of an AnnData file;
        - ``.tsv`` with three columns: the Graph Challenge's lines of sample, feature and value, the first two counted
          from 1. The largest sample number is the number of samples.

        Text files may be compressed with gzip (``.gz``).
    features : int, optional
        Number of features that the network takes: a batch of another width is an error, and padding bits are cut off.
        If not given, the largest feature number of a svmlight or Graph Challenge file is its number of features.

    Returns
    -------
    csr_array of float32, shape (samples, features)
        Indices int32 and ascending, without stored zeros.

    Raises
    ------
    FileFormatError
        If a file is missing, truncated, damaged or of an unknown format.
    InputError
        If its values are not finite in float32, or a sample does not have `features` features.
    SettingError
        If the library that the format needs is not installed.
    """
    form, files = _files_of(Path(path))
    with _in_memory(path):
        return stacked(form.parts(files, features)) if form.together is None else form.together(files, features)


def load_parts(path: str | os.PathLike[str], features: int) -> Iterator[Part]:
    """Read the files of a directory one after the other, so that all of them may be larger than memory.

    Parameters
    ----------
    path : path-like
        A directory or a file, as for `load_inputs`.
    features : int
        Number of features that the network takes.

    Yields
    ------
    file : Path
    samples : csr_array of float32, shape (samples, features)
        Together they are what `load_inputs` returns.

    Raises
    ------
    InputError
        As `load_inputs`; of a file's content when it is read.
    """
    form, files = _files_of(Path(path))
    with _in_memory(f"a file of {path}"):
        yield from form.parts(files, features)


@contextmanager
def _in_memory(what: object) -> Iterator[None]:
    """Say what does not fit in memory, where that is so."""
    try:
        yield
    except MemoryError as error:
        raise FileFormatError(f"{what} holds more than fits in memory") from error


def _files_of(place: Path) -> tuple[InputFormat, list[Path]]:
    """Return the files of a batch and their format."""
    files = files_in(place) if place.is_dir() else [place]
    form = _format_of(files[0])
    for file in files[1:]:
        if _format_of(file) is not form:
            raise FileFormatError(f"{file} is not of the format of {files[0]}; use one format per directory")
    return form, files


def _format_of(file: Path) -> InputFormat:
    try:
        with file.open("rb") as stream:
            start = stream.read(_MAGIC_BYTES)
    except OSError as error:
        raise FileFormatError(f"{file} cannot be read: {error.strerror or error}") from error
    if not start:
        raise FileFormatError(f"{file} is empty")
    for form in INPUT_FORMATS:
        if form.magic is not None and start.startswith(form.magic):
            return form
    for form in INPUT_FORMATS:
        if file.name.lower().endswith(form.suffixes):
            return form
    known = ", ".join(suffix for form in INPUT_FORMATS for suffix in form.suffixes if not suffix.endswith(".gz"))
    raise FileFormatError(f"{file} is of an unknown format; inputs are {known} files, text files also with .gz")
