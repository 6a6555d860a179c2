"""Inputs in Parquet and Arrow files: one row per sample, one column per feature, read with pyarrow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.errors import FileFormatError, InputError
from fsd_inference.network.checks import as_float32, not_real, shown
from fsd_inference.network.inputs import check_shape, inputs_from_blocks
from fsd_inference.network.readers.libraries import library
from fsd_inference.network.sparse_arrays import BLOCK_ENTRIES

ARROW_MAGIC = b"ARROW1"


def read_parquet(file: Path, features: int | None) -> sparse.csr_array:
    """Read the inputs in a Parquet file, by row groups.

    Raises
    ------
    FileFormatError
        If it is damaged.
    InputError
        If a column does not hold numbers, an entry is null or not finite in float32 (the message names the row,
        counted from 0, and the column), or the number of columns is not `features`.
    SettingError
        If pyarrow is not installed.
    """
    parquet = library("pyarrow.parquet", str(file))
    with _damaged(file), parquet.ParquetFile(file) as table:
        width = _width(table.schema_arrow, features, file)
        rows = max(1, BLOCK_ENTRIES // width)
        return inputs_from_blocks(_blocks(table.iter_batches(rows), file), width, features, str(file))


def read_arrow(file: Path, features: int | None) -> sparse.csr_array:
    """Read the inputs in an Arrow file (Feather version 2) or stream; errors are those of `read_parquet`."""
    ipc = library("pyarrow.ipc", str(file))
    with _damaged(file), file.open("rb") as stream:
        is_file = stream.read(len(ARROW_MAGIC)) == ARROW_MAGIC
        stream.seek(0)
        with ipc.open_file(stream) if is_file else ipc.open_stream(stream) as table:
            width = _width(table.schema, features, file)
            batches = (table.get_batch(k) for k in range(table.num_record_batches)) if is_file else table
            return inputs_from_blocks(_blocks(_cut(batches, width), file), width, features, str(file))


def _width(schema: Any, features: int | None, file: Path) -> int:
    """Return the number of columns, all of which must hold numbers."""
    types = library("pyarrow.types", str(file))
    for column in schema:
        if column.name.startswith("__index_level_"):
            raise InputError(f"{file}, column {shown(column.name)}: this is an index; save the table without the index")
        kind = column.type
        if not (types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind)):
            raise not_real(f"{file}, column {shown(column.name)}", kind)
    check_shape((1, len(schema)), features, str(file))
    return len(schema)


def _cut(batches: Iterable[Any], width: int) -> Iterator[Any]:
    rows = max(1, BLOCK_ENTRIES // width)
    for batch in batches:
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


def _blocks(batches: Iterable[Any], file: Path) -> Iterator[NDArray[np.float32]]:
    above = 0
    for batch in batches:
        block = np.empty((batch.num_rows, batch.num_columns), np.float32)
        for k, column in enumerate(batch.columns):
            if column.null_count:
                row = above + int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
                raise InputError(f"{file}, row {row}, column {_name(batch, k)}: the value is null; fill it first")
            block[:, k] = as_float32(column.to_numpy(zero_copy_only=False))
        finite = np.isfinite(block)
        if not finite.all():
            row, k = (int(number) for number in np.argwhere(~finite)[0])
            raise InputError(f"{file}, row {above + row}, column {_name(batch, k)} is not a finite float32 number")
        above += batch.num_rows
        yield block


def _name(batch: Any, column: int) -> str:
    return shown(batch.schema.field(column).name)


@contextmanager
def _damaged(file: Path) -> Iterator[None]:
    arrow = library("pyarrow", str(file))
    try:
        yield
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{file} is damaged or of another format: {' '.join(str(error).split())}") from error
