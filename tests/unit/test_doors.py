"""Test that every way to pass in an array gives the same bits, or the same error apart from the place it names."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.errors import InputError
from fsd_inference.network import IDENTITY, Layer, Network, as_inputs, load_inputs
from fsd_inference.session import Estimator, Session
from tests.support.arrays import FORMATS, SAVED, dense_arrays, laid_out, made
from tests.support.batches import BATCH
from tests.support.runs import dense

Array = NDArray[Any]
Door = Callable[[], NDArray[np.float32]]

arrow = pytest.importorskip("pyarrow", reason="no pyarrow: pip install 'fsd-inference[tables]' to read tables")
parquet = pytest.importorskip(
    "pyarrow.parquet", reason="no pyarrow: pip install 'fsd-inference[tables]' to read tables"
)
h5py = pytest.importorskip("h5py", reason="no h5py: pip install 'fsd-inference[h5]' to read annotated data")


def forms(x: Array) -> Iterator[tuple[str, Any]]:
    """Yield `x` in every layout and sparse format."""
    for layout in ("C", "F", "strided", "reversed"):
        yield layout, laid_out(x, layout)
    rows, columns = np.nonzero(x)
    for form in FORMATS:
        for kind in ("array", "matrix"):
            yield f"{form} {kind}", made(form, kind, x.shape, rows, columns, x[rows, columns])


def save_h5ad(path: Path, x: Any) -> None:
    with h5py.File(path, "w") as file:
        if isinstance(x, np.ndarray):
            file.create_dataset("X", data=x).attrs["encoding-type"] = "array"
            return
        group = file.create_group("X")
        group.attrs["encoding-type"], group.attrs["shape"] = f"{x.format}_matrix", x.shape
        for name in ("data", "indices", "indptr"):
            group.create_dataset(name, data=getattr(x, name))


def save_stream(path: Path, table: Any) -> None:
    with arrow.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)


def save_arrow(path: Path, table: Any) -> None:
    with arrow.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


def files(x: Array, folder: Path) -> Iterator[Path]:
    """Yield files of every format that can hold `x`."""
    np.save(folder / "x.npy", x)
    yield folder / "x.npy"
    np.save(folder / "f.npy", np.asfortranarray(x))
    yield folder / "f.npy"
    rows, columns = np.nonzero(x)
    data = x[rows, columns]
    for form in SAVED:
        sparse.save_npz(folder / f"{form}.npz", made(form, "array", x.shape, rows, columns, data))
        yield folder / f"{form}.npz"
    zero: dict[str, Any] = {
        "shape": x.shape,
        "data": data,
        "fill_value": np.zeros((), x.dtype),
    }  # as PyData's sparse saves arrays
    np.savez(folder / "coo.pydata.npz", format="coo", coords=np.array([rows, columns]), **zero)
    yield folder / "coo.pydata.npz"
    indptr = np.searchsorted(rows, np.arange(len(x) + 1))
    np.savez(folder / "gcxs.pydata.npz", format="gcxs", indices=columns, indptr=indptr, compressed_axes=[0], **zero)
    yield folder / "gcxs.pydata.npz"
    if x.dtype == np.bool_:
        np.savez(folder / "bits.npz", bits=np.packbits(x, axis=1))
        yield folder / "bits.npz"
    save_h5ad(folder / "dense.h5ad", x)
    yield folder / "dense.h5ad"
    for form in ("csr", "csc"):
        save_h5ad(folder / f"{form}.h5ad", made(form, "array", x.shape, rows, columns, data))
        yield folder / f"{form}.h5ad"
    if x.dtype.type != np.longdouble:
        native = x.astype(x.dtype.newbyteorder("="))
        table = arrow.table(
            [arrow.array(np.ascontiguousarray(column)) for column in native.T], [f"c{k}" for k in range(x.shape[1])]
        )
        for name, save in (("x.feather", save_stream), ("x.arrow", save_arrow)):
            save(folder / name, table)
            yield folder / name
        parquet.write_table(table, folder / "x.parquet")
        yield folder / "x.parquet"
    yield from texts(x, folder)


def texts(x: Array, folder: Path) -> Iterator[Path]:
    """Yield text files if float64, as which they are read, holds `x` exactly."""
    wide = x.astype(np.float64)
    with np.errstate(invalid="ignore"):
        is_exact = np.isnan(wide) | (wide.astype(x.dtype) == x) & (x == wide)
    if not is_exact.all() or (x.dtype.kind in "iu" and (np.abs(wide) > 2.0**53).any()):
        return
    rows, columns = np.nonzero(x)
    lines = [[repr(value) for value in row] for row in wide.tolist()]
    dense = "".join(",".join(line) + "\n" for line in lines)
    entries = [f"{row + 1} {column + 1} {lines[row][column]}\n" for row, column in zip(rows, columns, strict=True)]
    head, size = "%%MatrixMarket matrix", f"{x.shape[0]} {x.shape[1]}"
    contents = {
        "x.csv": dense,
        "x.mtx": f"{head} coordinate real general\n{size} {len(entries)}\n{''.join(entries)}",
        "dense.mtx": f"{head} array real general\n{size}\n"
        + "\n".join(repr(value) for value in wide.T.ravel().tolist()),
        "x.svm": "".join(
            " ".join(["0", *(f"{k + 1}:{value}" for k, value in enumerate(line) if float(value) != 0)]) + "\n"
            for line in lines
        ),
    }
    if x.shape[1] != 3:  # where lines of three are samples, features and values
        contents["x.tsv"] = dense.replace(",", "\t")
    if len(rows) and rows[-1] == len(x) - 1:  # which says how many samples there are
        contents["triplets.tsv"] = "".join(entries)
    for name, text in contents.items():
        (folder / name).write_text(text)
        yield folder / name
    (folder / "x.csv.gz").write_bytes(gzip.compress(dense.encode(), 1))
    yield folder / "x.csv.gz"


def as_batch(x: Any) -> NDArray[np.float32]:
    return as_inputs(x).toarray()


def as_weights(x: Any) -> NDArray[np.float32]:
    return np.asarray(Layer(x, 0).weights.toarray())


def loaded(file: Path, features: int) -> NDArray[np.float32]:
    return load_inputs(file, features).toarray()


def answered(x: Any) -> NDArray[np.float32]:
    """Return what a network gives back that passes its inputs on."""
    network = Network([Layer(sparse.eye_array(x.shape[1]), 0, IDENTITY)])
    with Session(network) as session:
        return dense(session.infer(x).outputs)


def estimated(x: Any) -> NDArray[np.float32]:
    """Return what a network that passes its inputs on transforms them to as an estimator."""
    with Estimator(Network([Layer(sparse.eye_array(x.shape[1]), 0, IDENTITY)])) as estimator:
        return estimator.fit(x).transform(x)


def doors(x: Array, folder: Path) -> Iterator[tuple[str, Door]]:
    for name, form in forms(x):
        yield f"{name} input", partial(as_batch, form)
        yield f"{name} weights", partial(as_weights, form)
        yield f"{name} run", partial(answered, form)
        yield f"{name} estimator", partial(estimated, form)
    for file in files(x, folder):
        yield file.name, partial(loaded, file, x.shape[1])


PLACE = re.compile(r"row (\d+), column (?:'c)?(\d+)'?(?: \(from 0\))?|line (\d+)(?:, column (\d+))?: .*")


def place(said: str) -> tuple[int, int] | None:
    """Return row and column of the entry that a sentence names, from 0; None if it names a line of one entry."""
    found = PLACE.search(said)
    assert found, said
    row, column, line, text_column = found.groups()
    if row is not None:
        return int(row), int(column)
    return None if text_column is None else (int(line) - 1, int(text_column) - 1)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(x=dense_arrays(), twice=st.booleans())
def test_every_door_gives_the_same_bits_or_the_same_sentence(x: Array, twice: bool, tmp_path: Path) -> None:
    if twice:  # a column that other formats than dense ones leave out
        x = np.hstack([x, np.zeros_like(x[:, :1])])
    with np.errstate(over="ignore"):
        expected = x.astype(np.float32) + np.float32(0)
    wrong = np.argwhere(~np.isfinite(expected))
    for name, door in doors(x, tmp_path):
        if not wrong.size:
            found = door()
            assert found.dtype == np.float32
            assert (found + np.float32(0)).tobytes() == expected.tobytes(), name
            continue
        with pytest.raises(InputError) as caught:
            door()
        said = str(caught.value)
        assert said.endswith("is not a finite float32 number"), (name, said)
        assert os.sep not in said or name in said
        assert place(said) in (None, tuple(wrong[0])), (name, said)


def test_every_door_refuses_another_width_in_the_same_words(tmp_path: Path) -> None:
    ways: list[tuple[str, Callable[[], object]]] = [(name, partial(as_inputs, x, 5)) for name, x in forms(BATCH)]
    # Of the others, two do not say how many features there are; and what a line of .tsv has may be two things.
    known = [file for file in files(BATCH, tmp_path) if file.name not in {"x.svm", "triplets.tsv", "x.tsv"}]
    ways += [(file.name, partial(load_inputs, file, 5)) for file in known]
    for name, way in ways:
        with pytest.raises(InputError, match=r"has 4 features per sample, but the network takes 5$") as caught:
            way()
        assert str(caught.value).startswith(("the input ", f"{tmp_path / name} ")), name
