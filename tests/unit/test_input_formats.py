"""Tests of readers of binary formats and directories: what other tools write is read, invalid files are errors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.errors import FileFormatError, InputError, SettingError
from fsd_inference.network import load_inputs
from fsd_inference.network.readers import tables
from tests.support.batches import BATCH, assert_is_batch


def optional(name: str, extra: str) -> Any:
    return pytest.importorskip(name, reason=f"no {name}: pip install 'fsd-inference[{extra}]' to read such files")


def refused(file: Path, features: int | None = 4) -> str:
    with pytest.raises(InputError) as caught:
        load_inputs(file, features)
    assert "\n" not in str(caught.value)
    return str(caught.value)


Save = Callable[[ModuleType, Any, Path], object]


def save_parquet(arrow: Any, table: Any, path: Path) -> None:
    optional("pyarrow.parquet", "tables").write_table(table, path, row_group_size=2)


def save_arrow(arrow: Any, table: Any, path: Path) -> None:
    with arrow.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def save_stream(arrow: Any, table: Any, path: Path) -> None:
    with arrow.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


TABLES = {"x.parquet": save_parquet, "x.arrow": save_arrow, "x.feather": save_stream}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i1", "i8"])
def test_tables_have_a_column_a_feature(name: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrow = optional("pyarrow", "tables")
    monkeypatch.setattr(tables, "BLOCK_ENTRIES", 4)
    batch = BATCH.astype(dtype)
    table = arrow.table([arrow.array(column) for column in batch.T], names=["z", "a", "a", "é"])
    TABLES[name](arrow, table, tmp_path / name)
    assert_is_batch(load_inputs(tmp_path / name, 4), batch)
    if name != "x.feather":
        (tmp_path / name).rename(tmp_path / "nameless")
        assert_is_batch(load_inputs(tmp_path / "nameless"), batch)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(
    ("column", "says"),
    [
        ([True, False, True], None),
        ([1.0, None, 2.0], r"row 1, column 'last': the value is null; fill it first"),
        ([1.0, 2.0, float("nan")], r"row 2, column 'last' is not a finite float32 number"),
        ([1e300, 2.0, 1.0], r"row 0, column 'last' is not a finite float32 number"),
        (["a", "b", "c"], r"column 'last' must be real numbers, not values of type string"),
        ([[1.0], [1.0], [1.0]], r"column 'last' must be real numbers, not values of type list"),
    ],
)
def test_columns_that_are_no_numbers_are_refused(name: str, column: Any, says: str | None, tmp_path: Path) -> None:
    arrow = optional("pyarrow", "tables")
    TABLES[name](arrow, arrow.table({"first": [1, 2, 3], "last": arrow.array(column)}), tmp_path / name)
    if says is None:
        assert_is_batch(load_inputs(tmp_path / name, 2), np.array([[1, 1], [2, 0], [3, 1]]))
    else:
        with pytest.raises(InputError, match=rf"{name}, {says}"):
            load_inputs(tmp_path / name, 2)
    assert f"{name} has 2 features per sample" in refused(tmp_path / name) or says is not None


@pytest.mark.parametrize("name", TABLES)
def test_wrong_tables_are_refused(name: str, tmp_path: Path) -> None:
    arrow = optional("pyarrow", "tables")
    file = tmp_path / name
    save = TABLES[name]
    save(arrow, arrow.table({"a": [1.0], "__index_level_0__": [1]}), file)
    assert "column '__index_level_0__': this is an index; save the table without the index" in refused(file, None)
    save(arrow, arrow.table({"a": arrow.array([], "f4")}), file)
    assert "not 0 x 1" in refused(file, None)
    save(arrow, arrow.table({"a": np.arange(1000.0)}), file)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert f"{file} is damaged or of another format: " in refused(file, None)
    file.write_text("a,b\n1,2\n")
    assert f"{file} is damaged or of another format: " in refused(file, None)


def save_h5ad(path: Path, x: Any, encoding: str | bytes | None = None, **options: Any) -> None:
    """Write X as AnnData does."""
    with optional("h5py", "h5").File(path, "w") as file:
        if isinstance(x, np.ndarray):
            saved = file.create_dataset("X", data=x, **options)
            saved.attrs["encoding-type"] = encoding or "array"
            return
        group = file.create_group("X")
        if isinstance(encoding, bytes):  # before AnnData 0.7
            group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = encoding, x.shape
        else:
            group.attrs["encoding-type"], group.attrs["shape"] = encoding or f"{x.format}_matrix", x.shape
        for name in ("data", "indices", "indptr"):
            group.create_dataset(name, data=getattr(x, name), **options)


CSR, CSC = sparse.csr_array(BATCH), sparse.csc_array(BATCH)


@pytest.mark.parametrize(
    ("x", "encoding"),
    [(BATCH, None), (BATCH.astype(">f8"), None), (CSR, None), (CSC, None), (CSR, b"csr"), (CSC, b"csc")],
)
@pytest.mark.parametrize("options", [{}, {"chunks": True, "compression": "gzip"}])
def test_annotated_data_is_its_x(x: Any, encoding: bytes | None, options: Any, tmp_path: Path) -> None:
    save_h5ad(tmp_path / "x.h5ad", x, encoding, **options)
    assert_is_batch(load_inputs(tmp_path / "x.h5ad", 4), BATCH)
    (tmp_path / "x.h5ad").rename(tmp_path / "nameless")
    assert_is_batch(load_inputs(tmp_path / "nameless"), BATCH)


def test_wrong_annotated_data_is_refused(tmp_path: Path) -> None:
    h5py = optional("h5py", "h5")
    file = tmp_path / "x.h5ad"
    save_h5ad(file, CSR, "coo_matrix")
    assert "X is of encoding-type 'coo_matrix', but must be array, csr_matrix or csc_matrix" in refused(file)
    for x in (BATCH[:, :3], CSR[:, :3], CSC[:, :3]):
        save_h5ad(file, x)
        assert "has 3 features per sample, but the network takes 4" in refused(file)
    changes: list[tuple[Callable[[Any], object], str]] = [
        (lambda x: x.attrs.__delitem__("shape"), "is damaged or of another format"),
        (lambda x: x.attrs.__setitem__("shape", [3.0, 4.0]), "the shape of X is not two whole numbers"),
        (lambda x: x.attrs.__setitem__("shape", [5, 4]), "do not have the sizes that its shape requires"),
        (lambda x: x.attrs.__setitem__("shape", [2**31 - 1, 4]), "do not have the sizes that its shape requires"),
        (lambda x: (x.__delitem__("data"), x.create_group("data")), "do not have the sizes that its shape requires"),
        (lambda x: x.__delitem__("indices"), "is damaged or of another format"),
        (lambda x: x["indices"].__setitem__(0, 9), "is not a valid sparse array"),
        (lambda x: x["data"].__setitem__(3, np.nan), r"row 2, column 3 (from 0) is not a finite float32 number"),
    ]
    for change, says in changes:
        save_h5ad(file, CSR)
        with h5py.File(file, "a") as opened:
            change(opened["X"])
        assert says in refused(file)
    wrong: list[tuple[Any, str]] = [
        (np.ones(4, np.float32), "X is 1-D; inputs are 2-D, samples x features"),
        (np.array([[b"a", b"b", b"c", b"d"]]), "must be real numbers, not values of type |S1"),
        (np.ones((1, 4), np.complex64), "must be real numbers, not values of type complex64"),
        (np.array([[1, 2, np.inf, 4]]), "row 0, column 2 (from 0) is not a finite float32 number"),
    ]
    for x, says in wrong:
        save_h5ad(file, x)
        assert says in refused(file)
    with h5py.File(file, "w") as opened:
        opened.create_dataset("obs", data=[1])
    assert "has no X" in refused(file)
    with h5py.File(file, "w") as opened:
        opened["X"] = np.dtype("f4")
    assert "X is neither an array nor a group of arrays" in refused(file)
    save_h5ad(file, CSC)
    with h5py.File(file, "a") as opened:
        opened["X"].attrs["shape"] = [2**31 - 1, 4]
    assert "2147483647 samples, but only 4 values" in refused(file)
    save_h5ad(file, BATCH)
    file.write_bytes(file.read_bytes()[:-100])
    assert "is damaged or of another format" in refused(file)


@pytest.mark.parametrize("form", ["COO", "GCXS", "GCXS by columns"])
def test_pydata_sparse_files_are_read(form: str, tmp_path: Path) -> None:
    pydata = optional("sparse", "test")
    arrays = {
        "COO": lambda: pydata.COO.from_numpy(BATCH),
        "GCXS": lambda: pydata.GCXS((CSR.data, CSR.indices, CSR.indptr), BATCH.shape, (0,)),
        "GCXS by columns": lambda: pydata.GCXS((CSC.data, CSC.indices, CSC.indptr), BATCH.shape, (1,)),
    }
    pydata.save_npz(tmp_path / "x.npz", arrays[form]())
    assert_is_batch(load_inputs(tmp_path / "x.npz", 4), BATCH)
    with np.load(tmp_path / "x.npz") as saved:
        members = dict(saved)
    np.savez(tmp_path / "old.npz", **{name: array for name, array in members.items() if name != "format"})
    assert_is_batch(load_inputs(tmp_path / "old.npz", 4), BATCH)
    pydata.save_npz(tmp_path / "x.npz", pydata.COO.from_numpy(np.ones((2, 2, 2))))
    assert "holds a 3-D sparse array; inputs are 2-D" in refused(tmp_path / "x.npz")
    pydata.save_npz(tmp_path / "x.npz", pydata.COO.from_numpy(BATCH, fill_value=1))
    assert "'fill_value' must be 0, as entries that are not stored are 0" in refused(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"fill_value": np.float32(np.nan)}, "'fill_value' must be 0"),
        ({"fill_value": "0"}, "'fill_value' must be 0"),
        ({"compressed_axes": [0, 1]}, "'compressed_axes' must be 0 .rows. or 1 .columns."),
        ({"compressed_axes": [0.0]}, "'compressed_axes' must be 0"),
        ({"compressed_axes": [2]}, "'compressed_axes' must be 0"),
        ({"compressed_axes": None}, "has no array 'compressed_axes'"),
        ({"indptr": None}, "has no array 'indptr'"),
        ({"indices": [0, 9, 0, 3]}, "is not a valid sparse array"),
        ({"coords": [[0, 1]]}, "coords are not two lists of numbers"),
    ],
)
def test_wrong_pydata_sparse_files_are_refused(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    members: dict[str, Any] = {
        "shape": CSR.shape,
        "data": CSR.data,
        "indices": CSR.indices,
        "indptr": CSR.indptr,
        "compressed_axes": [0],
        "fill_value": 0.0,
    }
    np.savez(tmp_path / "x.npz", **{name: value for name, value in (members | changes).items() if value is not None})
    with pytest.raises(FileFormatError, match=rf"x\.npz.*{says}"):
        load_inputs(tmp_path / "x.npz", 4)


def test_parts_follow_each_other_in_natural_order(tmp_path: Path) -> None:
    for number in (0, 2, 10, 100):
        np.save(tmp_path / f"part-{number}.npy", np.full((2, 3), number))
    for name in ("_SUCCESS", ".part-0.npy.crc"):
        (tmp_path / name).write_bytes(b"")
    assert_is_batch(load_inputs(tmp_path, 3), np.repeat([[0] * 3, [2] * 3, [10] * 3, [100] * 3], 2, axis=0))


def test_parts_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    def told(**parts: NDArray[Any] | str) -> str:
        for file in tmp_path.iterdir():
            file.unlink()
        for name, content in parts.items():
            path = tmp_path / name.replace("_", ".")
            if isinstance(content, str):
                path.write_text(content)
            else:
                np.save(path, content)
        return refused(tmp_path, None)

    three, four = np.ones((1, 3)), np.ones((1, 4))
    assert told(a_npy=four, b_npy=three).endswith(f"b.npy has 3 features per sample, but {tmp_path / 'a.npy'} has 4")
    assert told(a_npy=four, b_csv="1,2,3,4\n").endswith("a.npy; use one format per directory")
    assert told(a_npy=four, b_txt="read me").startswith(f"{tmp_path / 'b.txt'} is of an unknown format")
    assert told(a_npy=four, b_npy=np.full((1, 4), np.nan)).startswith(f"{tmp_path / 'b.npy'}, row 0, column 0")
    assert told(a_tsv="1\t2\t1\n", b_tsv="1\t2\t1\n").startswith(
        f"{tmp_path / 'a.tsv'} is not dense; a directory may hold"
    )
    (tmp_path / "c").mkdir()
    assert "c is a directory; put all input files directly into" in refused(tmp_path)


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("x.parquet", "pyarrow", "tables"),
        ("x.arrow", "pyarrow", "tables"),
        ("x.feather", "pyarrow", "tables"),
        ("x.h5ad", "h5py", "h5"),
    ],
)
def test_a_missing_library_is_named(
    name: str, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for loaded in [key for key in sys.modules if key.partition(".")[0] == module]:
        monkeypatch.setitem(sys.modules, loaded, None)
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / name).write_bytes(b"what it holds")
    with pytest.raises(SettingError) as caught:
        load_inputs(tmp_path / name, 4)
    assert str(caught.value) == (
        f"{tmp_path / name} needs {module}, which is not installed: pip install 'fsd-inference[{extra}]'"
    )
