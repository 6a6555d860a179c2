"""Inputs and weights of every dtype, layout and sparse format: NumPy's own sums bit for bit, or a one-line error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.errors import InputError
from fsd_inference.network import Layer, as_inputs, load_inputs
from tests.support.arrays import FORMATS, SAVED, dense_arrays, dtypes, laid_out, made, values


@st.composite
def entries(draw: st.DrawFn) -> tuple[tuple[int, int], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return a shape, and rows, columns and values in any order; no place is there more than twice."""
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    dtype = draw(dtypes())
    places = draw(st.lists(st.integers(0, shape[0] * shape[1] - 1), max_size=9, unique=True))
    twice = draw(st.lists(st.sampled_from(places), max_size=3, unique=True)) if places else []
    rows, columns = np.divmod(np.array(draw(st.permutations(places + twice)), np.int64), shape[1])
    data = np.array([draw(values(dtype)) for _ in rows], dtype)
    return shape, rows, columns, data


def summed(shape: tuple[int, int], rows: Any, columns: Any, data: NDArray[Any]) -> NDArray[np.float32]:
    """Return the sums, made one by one and rounded once."""
    total: NDArray[Any] = np.zeros(shape, np.bool_ if data.dtype.kind == "b" else np.longdouble)
    for row, column, value in zip(rows, columns, data, strict=True):
        total[row, column] = total[row, column] + value
    with np.errstate(over="ignore"):
        return total.astype(np.float32)


def by_file(x: Any, folder: Path) -> NDArray[np.float32]:
    file = folder / "x.npz"
    is_sparse = bool(sparse.issparse(x))  # a name, so that x stays Any for the type checker
    if is_sparse:
        sparse.save_npz(file, x)
    else:
        file = folder / "x.npy"
        np.save(file, x)
    return batch(load_inputs(file, x.shape[1]))


def batch(x: sparse.csr_array) -> NDArray[np.float32]:
    assert x.dtype == np.float32
    assert x.indices.dtype == x.indptr.dtype == np.int32
    assert x.has_canonical_format
    assert x.data.all()
    return x.toarray()


def check(x: Any, expected: NDArray[np.float32], door: str, folder: Path) -> None:
    doors: dict[str, Callable[[], NDArray[np.float32]]] = {
        "file": lambda: by_file(x, folder),
        "inputs": lambda: batch(as_inputs(x)),
        "layer": lambda: np.asarray(Layer(x, 0).weights.toarray()),
    }
    if not np.isfinite(expected).all():
        with pytest.raises(InputError, match="finite float32") as caught:
            doors[door]()
        assert "\n" not in str(caught.value)
        return
    np.testing.assert_array_equal(doors[door](), expected)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=entries(),
    form=st.sampled_from(FORMATS),
    kind=st.sampled_from(["array", "matrix"]),
    door=st.sampled_from(["file", "inputs", "layer"]),
)
def test_sparse_arrays_of_any_type_and_form(parts: Any, form: str, kind: str, door: str, tmp_path: Path) -> None:
    shape, rows, columns, data = parts
    if form in {"dia", "lil", "dok"}:  # which have one value a place
        _, first = np.unique(rows * shape[1] + columns, return_index=True)
        rows, columns, data = rows[first], columns[first], data[first]
    x = made(form, kind, shape, rows, columns, data)
    check(x, summed(shape, rows, columns, data), door if form in SAVED or door != "file" else "inputs", tmp_path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dense=dense_arrays(),
    layout=st.sampled_from(["C", "F", "strided", "reversed"]),
    door=st.sampled_from(["file", "inputs", "layer"]),
)
def test_dense_arrays_of_any_type_and_layout(dense: Any, layout: str, door: str, tmp_path: Path) -> None:
    with np.errstate(over="ignore"):
        expected = dense.astype(np.float32)
    check(laid_out(dense, layout), expected, door, tmp_path)


MASKED = np.ma.masked_array(np.ones((2, 2)), mask=[[False, True], [False, False]])
UNMASKED = np.ma.masked_array(np.ones((2, 2)), mask=False)


def sparse_with(data: Any) -> sparse.csr_array:
    x = sparse.csr_array(np.eye(2))
    x.data = data
    return x


@pytest.mark.parametrize(
    "x",
    [
        MASKED,
        np.ma.masked_array(np.ones((2, 2), np.float16), mask=True),
        list(MASKED),
        tuple(MASKED),
        [[1, np.ma.masked], [1, 1]],
        [np.ones(2), MASKED[0]],
        sparse_with(MASKED[0]),
    ],
)
def test_masked_values_are_refused(x: Any) -> None:
    for take, what in ((as_inputs, "the input"), (lambda x: Layer(x, 0), "a layer's weights")):
        with pytest.raises(InputError, match=rf"{what} has masked values; fill them first.*\.filled\("):
            take(x)


@pytest.mark.parametrize("bias", [MASKED[0], [1.0, np.ma.masked], np.ma.masked, list(MASKED[0])])
def test_masked_biases_are_refused(bias: Any) -> None:
    with pytest.raises(InputError, match=r"a layer's bias has masked values; fill them first.*\.filled\("):
        Layer(np.ones((2, 2)), bias)
    if isinstance(bias, np.ma.MaskedArray) and bias.ndim:
        taken = np.array([0, 1, 2]), np.array([0, 1], np.uint16), np.ones(2, np.float32), 2
        with pytest.raises(InputError, match="a layer's bias has masked values"):
            Layer.from_arrays(*taken, bias=bias.astype(np.float32))


@pytest.mark.parametrize("x", [UNMASKED, list(UNMASKED), sparse_with(UNMASKED[0])])
def test_masked_arrays_without_masked_values_are_taken(x: Any) -> None:
    expected = sparse_with(np.ones(2)).toarray() if isinstance(x, sparse.csr_array) else np.ones((2, 2))
    assert as_inputs(x).toarray().tolist() == expected.tolist()
    assert Layer(x, UNMASKED[0]).weights.toarray().tolist() == expected.tolist()


class Unreadable:
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise RuntimeError("this lies\non another device")


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.array([[1.0, None]], object), "real numbers, not values of type object"),
        (np.ones((1, 2), "M8[s]"), "real numbers, not values of type datetime64"),
        (np.ones((1, 2), "m8[s]"), "real numbers, not values of type timedelta64"),
        (np.ones((1, 2), np.complex64), "real numbers, not values of type complex64"),
        (np.zeros((1, 2), [("a", np.float32)]), "real numbers, not values of type"),
        (np.array([["1", "2"]]), "real numbers, not values of type"),
        (sparse.csr_array(np.ones((1, 2), np.complex128)), "real numbers, not values of type complex128"),
        (sparse.csr_array(np.ones((1, 2), np.clongdouble)), "real numbers, not values of type complex"),
        ([[1], [1, 2]], "cannot be read as an array"),
        ([[10**400]], "real numbers, not values of type object"),
        (Unreadable(), "cannot be read as an array: this lies on another device"),
        (np.float32(1), "2-D"),
        (sparse.coo_array(np.ones(3)), "2-D"),
        (sparse.coo_array(np.ones((2, 2, 2))), "2-D"),
    ],
)
def test_what_is_no_matrix_of_real_numbers_is_refused(x: Any, says: str) -> None:
    for take, what in ((as_inputs, "the input"), (lambda x: Layer(x, 0), "a layer's weights")):
        with pytest.raises(InputError, match=says) as caught:
            take(x)
        assert str(caught.value).startswith(what)
        assert "\n" not in str(caught.value)


def broken(x: Any, **changes: Any) -> Any:
    for name, value in changes.items():
        setattr(x, name, np.array(value))
    return x


def csr() -> sparse.csr_array:
    return sparse.csr_array(np.eye(3))


@pytest.mark.parametrize(
    "x",
    [
        broken(csr(), indices=[0, 1, 10**6]),
        broken(csr(), indices=[0, 1, -1]),
        broken(csr(), indptr=[0, 5, 2, 3]),
        broken(csr(), indptr=[0, 5, 0, 0]),
        broken(csr(), indptr=[0, 1, 2, 10**6]),
        broken(csr(), indptr=[1, 1, 2, 3]),
        broken(csr(), indptr=[0, 3]),
        broken(csr(), data=[1.0]),
        broken(csr(), data=[[1.0], [1.0], [1.0]]),
        broken(csr().tocsc(), indices=[0, 1, 3]),
        broken(csr().tobsr(blocksize=(1, 3)), indices=[0, 1, 0]),
        broken(csr().tobsr(blocksize=(1, 3)), data=np.ones((3, 2, 3))),
        broken(csr().todia(), offsets=[0, 1]),
        broken(sparse.dia_array((np.ones((2, 3)), [0, 1]), shape=(3, 3)), offsets=[1, 1]),
    ],
)
def test_structures_that_compiled_code_would_follow_astray_are_refused(x: Any) -> None:
    for take, what in ((as_inputs, "the input"), (lambda x: Layer(x, 0), "a layer's weights")):
        with pytest.raises(InputError, match=f"{what} is not a valid sparse array: "):
            take(x)


def test_room_beyond_the_last_value_is_no_part_of_an_array() -> None:
    x = broken(csr(), indices=[0, 1, 2, 10**6], data=[1.0, 2.0, 3.0, np.nan])
    assert as_inputs(x).toarray().tolist() == np.diag([1.0, 2.0, 3.0]).tolist()


def test_the_users_sparse_array_is_not_changed() -> None:
    for form in ("csr", "csc", "bsr", "coo"):
        x = made(form, "array", (2, 2), np.array([0, 0, 1]), np.array([1, 1, 0]), np.array([1.0, 2.0, 0.0]))
        before = [
            getattr(x, name).copy() for name in ("data", *(("row", "col") if form == "coo" else ("indices", "indptr")))
        ]
        as_inputs(x)
        Layer(x, 0)
        after = [getattr(x, name) for name in ("data", *(("row", "col") if form == "coo" else ("indices", "indptr")))]
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(one, other)
