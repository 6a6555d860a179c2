"""Inputs and outputs: every accepted format gives the same batch, and others are one-line errors."""

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
from fsd_inference.network import (
    as_inputs,
    load_inputs,
    save_outputs,
    sparse_arrays,
    write_categories,
)
from tests.support.batches import BATCH, assert_is_batch


def f32(values: list[float]) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def i32(values: list[int]) -> NDArray[np.int32]:
    return np.array(values, np.int32)


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
    source = dense.astype(np.float32) if dense.dtype == np.float16 else dense  # which SciPy cannot convert
    sparse.save_npz(tmp_path / "x.npz", sparse.coo_array(source).asformat(kind))
    assert_is_batch(load_inputs(tmp_path / "x.npz", dense.shape[1]), expected)
    np.savez(tmp_path / "bits.npz", bits=np.packbits(dense != 0, axis=1))
    assert_is_batch(load_inputs(tmp_path / "bits.npz", dense.shape[1]), dense != 0)


def test_large_inputs_are_converted_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_arrays, "BLOCK_ENTRIES", 9)
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
        ([[1], [1, 2]], "cannot be read as an array"),
        (np.ones((2, 3)), "3 features per sample, but the network takes 4"),
    ],
)
def test_unusable_arrays_are_refused(x: Any, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        as_inputs(x, 4 if "takes 4" in says else None)
    assert "\n" not in str(caught.value)


def npz(*unnamed: Any, **members: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, *unnamed, **members)
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


def bsr(**changes: Any) -> bytes:
    blocks = {
        "format": b"bsr",
        "shape": [4, 4],
        "data": np.ones((1, 2, 2)),
        "indices": i32([0]),
        "indptr": i32([0, 2, 1]),
    }
    return npz(**{**blocks, **changes})


def dia(**changes: Any) -> bytes:
    members = {"format": b"dia", "shape": [3, 3], "data": np.ones((2, 3)), "offsets": i32([0, 1])}
    return npz(**{name: value for name, value in {**members, **changes}.items() if value is not None})


def saved(x: Any) -> bytes:
    stream = io.BytesIO()
    sparse.save_npz(stream, x)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"hello world", "an unknown format; inputs are .npz, .npy, .*, .h5ad files, text files also with .gz"),
        (npy(np.array([{}], object)), "Python objects"),
        (npy(np.zeros((0, 3), np.float32)), "must have 1 to .* samples and features, not 0 x 3"),
        (npy_claiming("(1000000000000, 1000000000)"), "needs"),
        (npy_claiming("(1, 2)", b"1234"), "needs"),
        (npy_claiming("(0, 999999999999999999, 999999999999999999)"), "no array can have"),
        (npy_claiming("(1, 1)", b"123456"), "needs"),
        (npy_claiming("(-1, 1)", b"1234"), "plain numbers"),
        (npy_claiming("(1, 1)", b"1234", "<i3"), "unknown type of numbers"),
        (npy_claiming("(1, 1)", b"1234", "<U0"), "size of 0 bytes"),
        (npy_claiming("(__import__('os'), 1)", b"1234"), "plain numbers"),
        (b"\x93NUMPY\x01\x00\xff\xff", "header is too long"),
        (b"\x93NUMPY\x01\x00\x40\x00{'descr'", "plain numbers"),
        (b"\x93NUMPY", "not an .npy"),
        (b"PK\x03\x04", "damaged"),
        (zipped(data=b"hello"), "not an .npy"),
        (zipped(data=npy_claiming("(1000000000000,)")), "size does not fit"),
        (npz(data=np.ones(3), mask=np.ones(3)), "hold a sparse array but 'data', 'mask'; save a sparse one with scipy"),
        (npz(np.ones((2, 3))), "hold a sparse array but 'arr_0'; .* a dense one with numpy.save"),
        (npz(), "unknown format"),
        (npz(bits=np.ones((2, 2), np.float32)), "uint8"),
        (npz(bits=np.ones(2, np.uint8)), "samples x bytes"),
        (csr(format=b"lil"), "unknown format; use one of csr, csc, bsr, coo, dia"),
        (csr(format=b"\xff\xfe"), "unknown format"),
        (csr(format=[b"csr", b"csr"]), "unknown format"),
        (csr(format=7), "unknown format"),
        (saved(sparse.coo_array(np.ones((2, 2, 2)))), "a 3-D sparse array; inputs are 2-D"),
        (saved(sparse.coo_array(np.ones(3))), "a 1-D sparse array; inputs are 2-D"),
        (saved(sparse.csr_array(np.ones(3))), "a 1-D sparse array; inputs are 2-D"),
        (csr(data=None), "no array 'data'"),
        (csr(indices=i32([0, 3])), "valid sparse"),
        (csr(indices=i32([0, -1])), "valid sparse"),
        (csr(indices=i32([0])), "valid sparse"),
        (csr(indptr=i32([0, 2])), "valid sparse"),
        (csr(indptr=i32([0, 3, 2])), "valid sparse"),
        (csr(indptr=i32([1, 1, 2])), "valid sparse"),
        (csr(indptr=f32([0, 1, 2])), "valid sparse"),
        (csr(shape=[2]), "a 1-D sparse array"),
        (csr(shape=[2.0, 3.0]), "valid sparse"),
        (csr(shape=[[2], [3]]), "valid sparse"),
        (csr(shape=[2, -3]), "1 to"),
        (csr(shape=[3, 3]), "valid sparse"),
        (csr(indices=np.array([[0], [2]])), "valid sparse"),
        (csr(data=np.ones((2, 1))), "valid sparse"),
        (csr(data=f32([1]), indices=i32([0]), indptr=i32([0, 5, 0])), "valid sparse"),
        (csr(indices=np.array([2**63, 0], np.uint64)), "valid sparse"),
        (bsr(), "valid sparse"),
        (bsr(shape=[5, 4]), "divided into blocks of 2 x 2"),
        (bsr(shape=[4, 5]), "divided into blocks of 2 x 2"),
        (bsr(data=np.ones((1, 0, 2))), "divided into blocks of 0 x 2"),
        (bsr(data=np.ones(1)), "cannot be 1-D"),
        (bsr(indices=i32([2]), indptr=i32([0, 1, 1])), "valid sparse"),
        (dia(offsets=i32([0, 0])), "a diagonal occurs twice"),
        (dia(offsets=i32([0])), "offsets has 1 entries for 2 values"),
        (dia(offsets=f32([0, 1])), "whole numbers"),
        (dia(data=f32([1, 2])), "cannot be 1-D"),
        (dia(offsets=None), "no array 'offsets'"),
        # Sizes that a few bytes claim, but do not fill.
        (dia(shape=[2**24 + 1, 3]), "16777217 samples, but only 6 values"),
        (csr(format=b"csc", shape=[2**24 + 1, 2]), "16777217 samples, but only 2 values"),
        (csr(shape=[2**24 + 1, 3]), "16777217 samples, but only 2 values"),
        (bsr(shape=[2**24 + 2, 4]), "samples, but only 4 values"),
        (npz(format=b"coo", shape=[2**24 + 1, 2], data=[1.0], row=[5], col=[0]), "samples, but only 1 values"),
        (npz(format=b"coo", shape=[2**31, 2], data=[1.0], row=[5], col=[0]), "1 to"),
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


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr", "dia"])
@pytest.mark.parametrize("kind", ["array", "matrix"])
def test_formats_may_be_bytes_or_text(form: Any, kind: str, tmp_path: Path) -> None:
    x = sparse.coo_array(BATCH).asformat(form)
    (tmp_path / "new.npz").write_bytes(saved(x if kind == "array" else getattr(sparse, f"{form}_matrix")(x)))
    members = dict(np.load(tmp_path / "new.npz"))
    np.savez(tmp_path / "old.npz", **{**members, "format": form})
    for name in ("new.npz", "old.npz"):
        assert_is_batch(load_inputs(tmp_path / name, 4), BATCH)


def test_coordinates_may_be_one_array(tmp_path: Path) -> None:
    x = sparse.coo_array(BATCH)
    np.savez(tmp_path / "x.npz", format=b"coo", shape=x.shape, data=x.data, coords=x.coords, _is_array=True)
    assert_is_batch(load_inputs(tmp_path / "x.npz"), BATCH)


def test_few_values_in_many_features_are_cheap(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(npz(format=b"coo", shape=[2, 2**31 - 1], data=[1.0], row=[1], col=[2**31 - 2]))
    x = load_inputs(tmp_path / "x.npz")
    assert x.shape == (2, 2**31 - 1)
    assert (x.indptr.tolist(), x.indices.tolist()) == ([0, 0, 1], [2**31 - 2])


@pytest.mark.parametrize(
    "content",
    [
        csr(),
        dia(),
        saved(sparse.bsr_array(np.eye(4), blocksize=(2, 2))),
        npy(BATCH),
        npz(bits=np.ones((2, 2), np.uint8)),
    ],
)
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


def test_a_missing_file_and_an_empty_directory_are_refused(tmp_path: Path) -> None:
    for place, says in ((tmp_path / "absent.npz", "cannot be read"), (tmp_path, "a directory without input files")):
        with pytest.raises(FileFormatError, match=says):
            load_inputs(place)


def test_packed_bits_must_fit_the_network(tmp_path: Path) -> None:
    np.savez(tmp_path / "bits.npz", bits=np.full((2, 2), 255, np.uint8))
    assert load_inputs(tmp_path / "bits.npz").shape == (2, 16)
    assert load_inputs(tmp_path / "bits.npz", 11).shape == (2, 11)
    for features in (8, 17):
        with pytest.raises(InputError, match="16 bits per sample"):
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
    (tmp_path / "d.npz").mkdir()
    with pytest.raises(InputError, match="is a directory"):
        save_outputs(tmp_path / "d.npz", sparse.csr_array(BATCH))
    with pytest.raises(InputError, match="cannot be written"):
        save_outputs(tmp_path / "no" / "y.npz", sparse.csr_array(BATCH))


def test_new_files_have_the_usual_permissions(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_categories(tmp_path / "c.tsv", [True])
    finally:
        os.umask(before)
    assert (tmp_path / "c.tsv").stat().st_mode & 0o777 == 0o640


def test_numbers_are_rounded_to_float32() -> None:
    x = np.array([[0.1, 2**24 + 1, 1e-300, -0.0]])
    dense, packed = as_inputs(x), as_inputs(sparse.csr_array(x))
    for csr in (dense, packed):
        assert csr.dtype == np.float32
        assert csr.nnz == 2  # what rounds to zero is not stored
        assert csr.toarray().tolist() == x.astype(np.float32).tolist()
