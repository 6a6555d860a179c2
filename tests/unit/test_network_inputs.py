"""Inputs and answers: every accepted form gives the same batch, everything else is refused in one line."""

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.errors import FileFormatError, InputError
from fsd_inference.network import as_inputs, load_inputs, read_categories, save_outputs, write_categories
from fsd_inference.network import inputs as inputs_room

BATCH = np.array([[0, 1, 0, 2.5], [0, 0, 0, 0], [3, 0, 0, -1]], np.float32)


def f32(values: list[float]) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def i32(values: list[int]) -> NDArray[np.int32]:
    return np.array(values, np.int32)


def assert_is_batch(x: sparse.csr_array, expected: NDArray[Any]) -> None:
    assert isinstance(x, sparse.csr_array)
    assert x.dtype == np.float32
    assert x.indices.dtype == x.indptr.dtype == np.int32
    assert x.has_canonical_format
    assert x.nnz == np.count_nonzero(expected)
    np.testing.assert_array_equal(x.toarray(), expected)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dense=hnp.arrays(
        st.sampled_from([np.float32, np.float16, np.int8, np.uint16, np.bool_]),
        st.tuples(st.integers(1, 5), st.integers(1, 9)),
    ).filter(lambda array: bool(np.isfinite(array).all())),
    order=st.sampled_from(["C", "F"]),
    kind=st.sampled_from(["csr", "csc", "coo"]),
)
def test_dense_and_sparse_files_give_the_same_batch(dense: NDArray[Any], order: Any, kind: Any, tmp_path: Path) -> None:
    expected = dense.astype(np.float32)
    np.save(tmp_path / "x.npy", np.asarray(dense, order=order))
    assert_is_batch(load_inputs(tmp_path / "x.npy", dense.shape[1]), expected)
    source = dense.astype(np.float32) if dense.dtype == np.float16 else dense  # SciPy has no half precision
    sparse.save_npz(tmp_path / "x.npz", sparse.coo_array(source).asformat(kind))
    assert_is_batch(load_inputs(tmp_path / "x.npz", dense.shape[1]), expected)
    np.savez(tmp_path / "bits.npz", bits=np.packbits(dense != 0, axis=1))
    assert_is_batch(load_inputs(tmp_path / "bits.npz", dense.shape[1]), dense != 0)


def test_large_inputs_are_converted_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs_room, "_BLOCK_ENTRIES", 9)
    np.save(tmp_path / "x.npy", BATCH)
    assert_is_batch(load_inputs(tmp_path / "x.npy"), BATCH)


def test_duplicates_are_summed_and_zeros_left_out() -> None:
    x = sparse.coo_array(([1.0, 2.0, 0.0, -0.0], ([0, 0, 1, 1], [2, 2, 0, 1])), shape=(2, 3))
    assert_is_batch(as_inputs(x), np.array([[0, 0, 3], [0, 0, 0]]))


def test_the_callers_array_is_not_changed() -> None:
    x = sparse.csr_array((f32([0, 1]), [1, 0], [0, 2]), shape=(1, 2))
    as_inputs(x)
    assert x.nnz == 2
    assert x.indices.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.ones(3), "2-D"),
        (np.ones((2, 2, 2)), "2-D"),
        (np.ones((0, 3)), "1 to"),
        (np.ones((3, 0)), "1 to"),
        ([[np.nan]], "finite"),
        (sparse.csr_array([[np.inf]]), "finite"),
        ([[1e300]], "float32"),
        ([["a"]], "real numbers"),
        ([[1j]], "real numbers"),
        ([[None]], "real numbers"),
        ([[1], [1, 2]], "not an array"),
        (np.ones((2, 3)), "3 features a sample, but the network takes 4"),
    ],
)
def test_unusable_arrays_are_refused(x: Any, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        as_inputs(x, 4 if "takes 4" in says else None)
    assert "\n" not in str(caught.value)


def npz(**members: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **members)
    return stream.getvalue()


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def npy_claiming(shape: str, data: bytes = b"", descr: str = "<f4") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def zipped(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return stream.getvalue()


def csr(**changes: Any) -> bytes:
    members = {
        "format": b"csr",
        "shape": [2, 3],
        "data": f32([1, 2]),
        "indices": i32([0, 2]),
        "indptr": i32([0, 1, 2]),
    }
    return npz(**{name: value for name, value in {**members, **changes}.items() if value is not None})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"hello world", "neither"),
        (npy(np.array([{}], object)), "Python objects"),
        (npy(np.zeros((0, 3), np.float32)), "empty array"),
        (npy_claiming("(1000000000000, 1000000000)"), "needs"),
        (npy_claiming("(1, 2)", b"1234"), "needs"),
        (npy_claiming("(1, 1)", b"123456"), "needs"),
        (npy_claiming("(-1, 1)", b"1234"), "plain numbers"),
        (npy_claiming("(1, 1)", b"1234", "<i3"), "no numbers of type"),
        (npy_claiming("(1, 1)", b"1234", "<U0"), "no size"),
        (npy_claiming("(__import__('os'), 1)", b"1234"), "plain numbers"),
        (b"\x93NUMPY\x01\x00\xff\xff", "header is too long"),
        (b"\x93NUMPY\x01\x00\x40\x00{'descr'", "plain numbers"),
        (b"\x93NUMPY", "not an .npy"),
        (b"PK\x03\x04", "damaged"),
        (zipped(data=b"hello"), "not an .npy"),
        (zipped(data=npy_claiming("(1000000000000,)")), "size does not fit"),
        (npz(data=np.ones(3)), "no array 'format'"),
        (npz(bits=np.ones((2, 2), np.float32)), "uint8"),
        (npz(bits=np.ones(2, np.uint8)), "samples x bytes"),
        (csr(format=b"bsr"), "not csr, csc or coo"),
        (csr(data=None), "no array 'data'"),
        (csr(indices=i32([0, 3])), "valid sparse"),
        (csr(indices=i32([0, -1])), "valid sparse"),
        (csr(indices=i32([0])), "valid sparse"),
        (csr(indptr=i32([0, 2])), "valid sparse"),
        (csr(indptr=i32([0, 3, 2])), "valid sparse"),
        (csr(indptr=i32([1, 1, 2])), "valid sparse"),
        (csr(indptr=f32([0, 1, 2])), "valid sparse"),
        (csr(shape=[2]), "valid sparse"),
        (csr(shape=[2, -3]), "valid sparse"),
        (csr(shape=["a", "b"]), "valid sparse"),
        (csr(format=b"csc", indptr=i32([0, 1, 2, 2]), indices=i32([0, 2])), "valid sparse"),
        (npz(format=b"coo", shape=[2, 2], data=[1.0], row=[5], col=[0]), "valid sparse"),
        (csr(data=f32([1, np.nan])), "finite"),
        (csr(data=np.array([1, 1j])), "real numbers"),
        (csr(shape=[0, 3], indptr=i32([0]), indices=i32([]), data=f32([])), "1 to"),
    ],
)
def test_unusable_files_are_refused(content: bytes, says: str, tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        load_inputs(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [csr(), npy(BATCH), npz(bits=np.ones((2, 2), np.uint8))])
def test_damaged_files_are_refused_or_read(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x"
    for length in range(0, len(content), 5):
        file.write_bytes(content[:length])
        with pytest.raises(InputError):
            load_inputs(file)
    for position in range(0, len(content), 2):
        changed = bytearray(content)
        changed[position] ^= 0x41
        file.write_bytes(changed)
        try:
            load_inputs(file)
        except InputError as error:
            assert "\n" not in str(error).replace(str(file), "")  # noqa: PT017 - either end is good


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    for place in (tmp_path / "absent.npz", tmp_path):
        with pytest.raises(FileFormatError, match="cannot be read"):
            load_inputs(place)


def test_packed_bits_must_fit_the_network(tmp_path: Path) -> None:
    np.savez(tmp_path / "bits.npz", bits=np.full((2, 2), 255, np.uint8))
    assert load_inputs(tmp_path / "bits.npz").shape == (2, 16)
    assert load_inputs(tmp_path / "bits.npz", 11).shape == (2, 11)
    for features in (8, 17):
        with pytest.raises(InputError, match="16 bits a sample"):
            load_inputs(tmp_path / "bits.npz", features)


def test_outputs_are_scipys_files(tmp_path: Path) -> None:
    outputs = sparse.csr_array(BATCH)
    save_outputs(tmp_path / "y.npz", outputs)
    read = sparse.load_npz(tmp_path / "y.npz")
    assert isinstance(read, sparse.csr_array)
    assert_is_batch(read, BATCH)
    save_outputs(tmp_path / "y.npz", 2 * outputs)
    assert_is_batch(load_inputs(tmp_path / "y.npz"), 2 * BATCH)


def test_no_half_written_file_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: Any, **__: Any) -> None:
        raise RuntimeError("the disk broke")

    monkeypatch.setattr(np.lib.format, "write_array", breaks)
    with pytest.raises(RuntimeError, match="broke"):
        save_outputs(tmp_path / "y.npz", sparse.csr_array(BATCH))
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="is a directory"):
        save_outputs(tmp_path, sparse.csr_array(BATCH))
    with pytest.raises(InputError, match="cannot be written"):
        save_outputs(tmp_path / "no" / "y.npz", sparse.csr_array(BATCH))


def test_new_files_have_the_usual_permissions(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_categories(tmp_path / "c.tsv", [True])
    finally:
        os.umask(before)
    assert (tmp_path / "c.tsv").stat().st_mode & 0o777 == 0o640


@given(alive=hnp.arrays(np.bool_, st.integers(0, 30)))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_categories_round_trip(alive: NDArray[np.bool_], tmp_path: Path) -> None:
    write_categories(tmp_path / "c.tsv", alive)
    np.testing.assert_array_equal(read_categories(tmp_path / "c.tsv"), np.flatnonzero(alive) + 1)


def test_categories_are_the_official_format(tmp_path: Path) -> None:
    write_categories(tmp_path / "c.tsv", [False, True, False, True])
    assert (tmp_path / "c.tsv").read_bytes() == b"2\n4\n"


@pytest.mark.parametrize("content", ["0\n", "3\n3\n", "3\n2\n", "a\n", "1\n\n2\n", "-1\n", "1.0\n", "9" * 30, "\xb2\n"])
def test_wrong_categories_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "c.tsv").write_text(content, encoding="utf-8")
    with pytest.raises(FileFormatError, match="sample number"):
        read_categories(tmp_path / "c.tsv")
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_categories(tmp_path / "absent")


def test_numbers_are_rounded_to_float32() -> None:
    x = np.array([[0.1, 2**24 + 1, 1e-300, -0.0]])
    dense, packed = as_inputs(x), as_inputs(sparse.csr_array(x))
    for csr in (dense, packed):
        assert csr.dtype == np.float32
        assert csr.nnz == 2  # what rounds to zero is not stored
        assert csr.toarray().tolist() == x.astype(np.float32).tolist()
