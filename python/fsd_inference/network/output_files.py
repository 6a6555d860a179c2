"""Writing of outputs, samples x neurons or labels of each sample, in the format of the file's suffix."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.atomic import atomic_file
from fsd_inference.errors import SettingError
from fsd_inference.network.readers.libraries import library
from fsd_inference.network.sparse_arrays import BLOCK_ENTRIES

Labels = NDArray[np.int32]
StrPath = str | os.PathLike[str]

OUTPUT_SUFFIXES = (".npz", ".npy", ".csv", ".parquet")

_FLOAT32 = "%.9g"  # nine significant digits restore every float32 exactly


def check_output_format(path: StrPath) -> None:
    """Raise SettingError unless the suffix of `path` is a known format whose library is installed."""
    _suffix(path)


def save_outputs(path: StrPath, outputs: sparse.csr_array | NDArray[np.float32], *, suffix: str | None = None) -> int:
    """Write outputs to a file; the write is atomic.

    Parameters
    ----------
    path : path-like
        File to write. Its suffix is the format:

        - ``.npz``: CSR, for `scipy.sparse.load_npz`;
        - ``.npy``: dense, for `numpy.load`;
        - ``.csv``: dense, one line per sample, without column names;
        - ``.parquet``: dense, one column per neuron, named by its index from 0.
    outputs : csr_array or ndarray of float32, shape (samples, neurons)
        Outputs to write.
    suffix : str, optional
        Format to use instead of the suffix of `path`.

    Returns
    -------
    int
        Size of the file in bytes.

    Raises
    ------
    SettingError
        If the format is unknown, or its library is not installed.
    InputError, OutputError
        If `path` cannot be written.
    """
    kind = _suffix(path if suffix is None else suffix)
    with atomic_file(path) as beside, beside.open("wb") as stream:
        if kind == ".npz":
            _write_csr(stream, sparse.csr_array(outputs))
        elif kind == ".npy":
            header = {"descr": "<f4", "fortran_order": False, "shape": outputs.shape}
            np.lib.format.write_array_header_1_0(stream, header)
            for block in _blocks(outputs):
                stream.write(block.astype("<f4", copy=False).tobytes())
        elif kind == ".csv":
            for block in _blocks(outputs):
                _write_lines(stream, block, _FLOAT32)
        else:
            names = [str(neuron) for neuron in range(outputs.shape[1])]
            _write_parquet(stream, names, np.dtype(np.float32), _blocks(outputs))
        return stream.tell()


def save_labels(path: StrPath, labels: Labels, *, suffix: str | None = None) -> int:
    """Write int32 labels, one per sample or k: the array ``labels`` of an .npz, an .npy, a .csv or a .parquet.

    Parameters, result and errors are those of `save_outputs`. The column of a .parquet is ``label``; of k labels, the
    columns are ``label_0`` to ``label_{k-1}``.
    """
    kind = _suffix(path if suffix is None else suffix)
    with atomic_file(path) as beside, beside.open("wb") as stream:
        if kind == ".npz":
            _write_archive(stream, {"labels": labels})
        elif kind == ".npy":
            np.lib.format.write_array(stream, labels, allow_pickle=False)
        elif kind == ".csv":
            _write_lines(stream, labels.reshape(len(labels), -1), "%d")
        else:
            names = ["label"] if labels.ndim == 1 else [f"label_{place}" for place in range(labels.shape[1])]
            _write_parquet(stream, names, labels.dtype, [labels.reshape(len(labels), -1)])
        return stream.tell()


def _suffix(path: StrPath) -> str:
    name = os.fspath(path).lower()
    found = next((suffix for suffix in OUTPUT_SUFFIXES if name.endswith(suffix)), None)
    if found is None:
        raise SettingError(
            f"{os.fspath(path)} has no suffix of an output format; use one of {', '.join(OUTPUT_SUFFIXES)}"
        )
    if found == ".parquet":
        library("pyarrow.parquet", os.fspath(path))
    return found


def _blocks(outputs: sparse.csr_array | NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    step = max(1, BLOCK_ENTRIES // outputs.shape[1])
    for start in range(0, outputs.shape[0], step):
        block = outputs[start : start + step]
        yield block if isinstance(block, np.ndarray) else block.toarray()


def _write_csr(stream: IO[bytes], outputs: sparse.csr_array) -> None:
    _write_archive(
        stream,
        {
            "indices": outputs.indices,
            "indptr": outputs.indptr,
            "format": np.array(b"csr"),
            "shape": np.array(outputs.shape),
            "data": outputs.data,
            "_is_array": np.array(True),
        },
    )


def _write_archive(stream: IO[bytes], members: Mapping[str, NDArray[Any]]) -> None:
    # The fastest level: activations have many equal values, so slower levels gain little.
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in members.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _write_lines(stream: IO[bytes], block: NDArray[Any], number: str) -> None:
    line = f"{','.join([number] * block.shape[1])}\n"
    stream.writelines((line % tuple(row)).encode() for row in block.tolist())


def _write_parquet(stream: IO[bytes], names: list[str], dtype: np.dtype[Any], blocks: Any) -> None:
    arrow, parquet = library("pyarrow", ".parquet"), library("pyarrow.parquet", ".parquet")
    schema = arrow.schema([arrow.field(name, arrow.from_numpy_dtype(dtype), nullable=False) for name in names])
    with parquet.ParquetWriter(stream, schema) as writer:
        for block in blocks:
            columns = [arrow.array(np.ascontiguousarray(column)) for column in block.T]
            writer.write_batch(arrow.record_batch(columns, schema=schema))
