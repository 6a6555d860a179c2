"""Tests of readers of text formats: what other tools write is read, and every invalid file is a one-line error."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import io, sparse

from fsd_inference.errors import FileFormatError, InputError
from fsd_inference.network import load_inputs
from fsd_inference.network.readers import delimited, svmlight
from tests.support.batches import BATCH, assert_is_batch

HEAD = "%%MatrixMarket matrix coordinate real general\n"
ENTRIES = "3 4 4\n1 2 1\n3 1 3\n1 4 2.5\n3 4 -1\n"
SQUARE = np.array([[1, 2, 0], [2, 0, 3], [0, 3, 0]], np.float32)
SKEW = np.array([[0, -2, 0], [2, 0, -3], [0, 3, 0]], np.float32)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEAD + ENTRIES, BATCH),
        (HEAD.upper().replace("MARKET", "Market").replace("ATRIXM", "atrixM") + ENTRIES, BATCH),
        (HEAD + "% said\n\n  % more\n" + ENTRIES.replace("\n", " % why\n\n").replace("4 4 % why", "4 4"), BATCH),
        (HEAD.replace("real", "integer") + ENTRIES.replace(" 2.5", " 2").replace("3 1 3", "3 1 3"), np.trunc(BATCH)),
        (HEAD.replace("real", "pattern") + "2 2 3\n1 1\n2 1\n2 1\n", [[1, 0], [2, 0]]),
        (HEAD.replace("general", "symmetric") + "3 3 3\n1 1 1\n2 1 2\n3 2 3\n", SQUARE),
        (HEAD.replace("general", "hermitian") + "3 3 3\n1 1 1\n2 1 2\n3 2 3\n", SQUARE),
        (HEAD.replace("general", "skew-symmetric") + "3 3 2\n2 1 2\n3 2 3\n", SKEW),
        (HEAD.replace("coordinate", "array") + "2 3\n1\n4\n2\n5\n3\n6\n", [[1, 2, 3], [4, 5, 6]]),
        ("%%MatrixMarket matrix array integer symmetric\n3 3\n1\n2\n0\n0\n3\n0\n", SQUARE),
        ("%%MatrixMarket matrix array real skew-symmetric\n3 3\n2\n0\n3\n", SKEW),
        (HEAD + "2 3 0\n", np.zeros((2, 3))),
    ],
)
def test_matrix_market_is_read_as_scipy_reads_it(text: str, expected: Any, tmp_path: Path) -> None:
    (tmp_path / "x.mtx").write_text(text)
    (tmp_path / "packed.mtx.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    (tmp_path / "nameless").write_text(text)
    assert_is_batch(load_inputs(tmp_path / "x.mtx"), np.array(expected))
    assert_is_batch(load_inputs(tmp_path / "packed.mtx.gz"), np.array(expected))
    if text.startswith("%%MatrixMarket"):
        assert_is_batch(load_inputs(tmp_path / "nameless"), np.array(expected))
    if "% why" not in text:
        found: Any = io.mmread(tmp_path / "x.mtx")
        np.testing.assert_array_equal(found if isinstance(found, np.ndarray) else found.toarray(), expected)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "u8", "?"])
@pytest.mark.parametrize("form", ["coo", "dense"])
def test_what_scipy_writes_as_matrix_market_is_read(dtype: str, form: str, tmp_path: Path) -> None:
    batch = np.abs(BATCH).astype(dtype)
    io.mmwrite(tmp_path / "x.mtx", sparse.coo_array(batch) if form == "coo" else batch.astype("f8"))
    assert_is_batch(load_inputs(tmp_path / "x.mtx", 4), batch)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("3 4 4\n", "line 1: '3 4 4' is not a header such as '%%MatrixMarket matrix coordinate real general'"),
        (HEAD.replace("real", "complex") + "1 4 1\n1 1 1 2\n", "must be real numbers, not values of type complex"),
        (HEAD.replace("matrix ", "vector "), "line 1: .* is not a header"),
        ("%%MatrixMarket matrix array pattern general\n2 4\n", "line 1: an array cannot be a pattern"),
        (HEAD + "%\n3 4\n", "line 3: '3 4' is not the number of rows, columns and entries"),
        (HEAD, "line 2: '' is not the number of rows, columns and entries"),
        (HEAD + "3 -4 1\n", "line 2: '3 -4 1' is not the number"),
        (HEAD + "3 5 1\n1 1 1\n", "has 5 features per sample, but the network takes 4"),
        (HEAD + f"{10**30} 4 1\n1 1 1\n", "must have 1 to .* samples and features"),
        (HEAD + f"{2**31 - 1} 4 1\n1 1 1\n", "2147483647 samples, but only 1 values"),
        (HEAD.replace("general", "symmetric") + "3 4 1\n1 1 1\n", "line 2: a symmetric matrix cannot be 3 x 4"),
        (HEAD + "3 4 9\n1 1 1\n", "has 1 entries, but its header says 9"),
        (HEAD + "3 4 0\n1 1 1\n", "has 1 entries, but its header says 0"),
        (HEAD + "3 4 2\n1 1 1\n\n%\n1 5 1\n", "line 6: column 5 is not a whole number in 1 to 4"),
        (HEAD + "3 4 2\n1 1 1\n0 1 1\n", "line 4: row 0 is not a whole number in 1 to 3"),
        (HEAD + "3 4 2\n1 1 1\n1.5 1 1\n", "line 4: row 1.5 is not a whole number"),
        (HEAD + "3 4 2\n1 1 1\n1 1\n", "line 4: '1 1' is not row, column, value"),
        (HEAD + "3 4 2\n1 1 1\n1 1 x\n", "line 4: '1 1 x' is not row, column, value"),
        (HEAD + "3 4 1\n1 1 1 0\n", "line 3: '1 1 1 0' is not row, column, value"),
        (HEAD + "3 4 1\n1 1 nan\n", "line 3: value nan is not a finite float32 number"),
        (
            HEAD.replace("general", "symmetric") + "4 4 1\n1 2 1\n",
            "line 3: the symmetry in the header implies this entry",
        ),
        (HEAD.replace("general", "skew-symmetric") + "4 4 1\n2 2 1\n", "line 3: the symmetry in the header implies"),
        ("%%MatrixMarket matrix array real general\n3 4\n1\n1 2\n", "line 4: '1 2' is not value"),
        ("%%MatrixMarket matrix array real general\n3 4\n1\n", "has 1 entries, but its header says 12"),
    ],
)
def test_wrong_matrix_market_is_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "x.mtx").write_text(text)
    with pytest.raises(InputError, match=rf"x\.mtx.*{says}") as caught:
        load_inputs(tmp_path / "x.mtx", 4)
    assert "\n" not in str(caught.value)


SVM = "1 2:1 4:2.5 # a comment, 1:2\n\n# nothing\n-1 qid:3\n+2,3 qid:1 4:-1 1:3e0\n"


@pytest.mark.parametrize(
    "text",
    [
        SVM,
        SVM.replace("\n", "\r\n"),
        "\ufeff" + SVM.rstrip("\n"),
        "1 1:1 3:2.5 2:0\n0\n0 0:3 3:-1\n",
    ],
)
def test_svmlight_may_count_from_0_or_1(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svmlight, "_LINES", 1)
    for suffix in ("svm", "svmlight", "libsvm"):
        (tmp_path / f"x.{suffix}").write_text(text, encoding="utf-8")
        assert_is_batch(load_inputs(tmp_path / f"x.{suffix}", 4), BATCH)
    (tmp_path / "x.svm.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    assert_is_batch(load_inputs(tmp_path / "x.svm.gz"), BATCH)


def test_svmlight_features_are_countable(tmp_path: Path) -> None:
    (tmp_path / "x.svm").write_text("1 0:1 2147483647:1\n")
    with pytest.raises(InputError, match=r"x\.svm must have 1 to 2147483647 samples and features, not 1 x 2147483648"):
        load_inputs(tmp_path / "x.svm")


def test_svmlight_has_as_many_features_as_the_network(tmp_path: Path) -> None:
    (tmp_path / "x.svm").write_text(SVM)
    assert_is_batch(load_inputs(tmp_path / "x.svm", 6), np.pad(BATCH, ((0, 0), (0, 2))))


def test_in_parts_one_feature_0_says_how_all_are_counted(tmp_path: Path) -> None:
    for number, text in enumerate(("1 1:1 3:2.5\n0\n", "0 0:3 3:-1\n")):
        (tmp_path / f"part-{number}.libsvm").write_text(text)
    assert_is_batch(load_inputs(tmp_path, 4), BATCH)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("1 1:1\n0 5:1\n", "line 2: feature 5 is not in 1 to 4"),
        ("1 0:1\n\n0 4:1\n", "line 3: feature 4 is not in 0 to 3, as there is a feature 0"),
        ("1 1:1\n0 2:1 2:2\n", "line 2: feature 2 occurs for the second time"),
        ("1 1:1\n0 3:1 2:2 1:4 3:1\n", "line 2: feature 3 occurs for the second time"),
        ("1 1:1\n1:1 2:2\n", "line 2: the line starts with '1:1', not with a label such as 0"),
        ("1 1:1\n0 2\n", "line 2: '2' is not FEATURE:VALUE"),
        ("1 1:1:2 2\n", "line 1: '1:1:2' is not FEATURE:VALUE"),
        ("1 1:\n", "line 1: '1:' is not FEATURE:VALUE"),
        ("1 x:1\n", "line 1: 'x:1' is not FEATURE:VALUE"),
        ("1 1:1 qid:2\n", "line 1: 'qid:2' is not FEATURE:VALUE"),
        ("1 -1:1\n", "line 1: feature -1 is not a whole number in 0 to"),
        ("1 0:1 2147483647:1\n", "line 1: feature 2147483647 is not in 0 to 3"),
        ("1 1.5:1\n", "line 1: feature 1.5 is not a whole number"),
        ("1 99999999999:1\n", "line 1: feature 99999999999 is not a whole number"),
        ("1 1:1\n1 1:1e39\n", "line 2: value 1e39 is not a finite float32 number"),
    ],
)
def test_wrong_svmlight_is_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "x.svm").write_text(text)
    with pytest.raises(FileFormatError, match=rf"x\.svm.*{says}"):
        load_inputs(tmp_path / "x.svm", 4)


@pytest.mark.parametrize(
    "text",
    [
        "0,1,0,2.5\n0,0,0,0\n3,0,0,-1\n",
        "a,b,c,d\n0,1,0,2.5\n0,0,0,0\n3,0,0,-1",
        '"a, or b",b,c,d\r\n"0", 1 ,+0,25e-1\r\n\r\n0,0,0,-0.0\r\n3.,0,0,-1\r\n',
        "\ufeff# a,b,c,d\n0,1,0,2.5\n0,0,0,0\n3,0,0,-1\n",
    ],
)
@pytest.mark.parametrize("separator", [",", "\t"])
def test_dense_text_is_numbers_below_names(
    text: str, separator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "_BLOCK_ENTRIES", 8)
    name = {",": "x.csv", "\t": "x.tsv"}[separator]
    content = text.replace(",", separator).encode()
    (tmp_path / name).write_bytes(content)
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
    for file in (tmp_path / name, tmp_path / f"{name}.gz"):
        assert_is_batch(load_inputs(file, 4), BATCH)
        assert_is_batch(load_inputs(file), BATCH)


def test_one_column_is_one_feature(tmp_path: Path) -> None:
    for name in ("x.csv", "x.tsv"):
        (tmp_path / name).write_text("1\n0\n2\n")
        assert_is_batch(load_inputs(tmp_path / name, 1), np.array([[1], [0], [2]]))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\n\n", "is empty"),
        ("a,b,c,d\n", "must have 1 to .* not 0 x 4"),
        ("1,2,3\n", "has 3 features per sample, but the network takes 4"),
        ("1;2;3;4\n", "has 1 features per sample, but the network takes 4"),
        ("1,2,3,4\n\n1,2,3\n", "line 3: 3 columns, but lines before it have 4"),
        ("1,2,3,4\n1,2,3,4,5\n", "line 2: 5 columns, but lines before it have 4"),
        ("a,b,c,d\n1,2,3,4\n1,,3,4\n", "line 3, column 2: '' is not a number"),
        ("1,2,x,4\n", "line 1, column 3: 'x' is not a number"),
        ("1,2,3,4\n1,2,3,0x1\n", "line 2, column 4: '0x1' is not a number"),
        ("1,2,3,4\n1,1_0,3,4\n", "line 2, column 2: '1_0' is not a number"),
        ("1,2,3,4\n1,NaN,3,4\n", "line 2, column 2: NaN is not a finite float32 number"),
        ("1,2,3,-1e39\n", "line 1, column 4: -1e39 is not a finite float32 number"),
        (",a,b,c\n0,1,2,3\n", "line 1: column 1 has no name, so it is an index; save the file without the index"),
        ("a,b,c,d\n1,2,3,4\na,b,c,d\n", "line 3, column 1: 'a' is not a number"),
    ],
)
def test_wrong_dense_text_is_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputError, match=rf"x\.csv.*{says}"):
        load_inputs(tmp_path / "x.csv", 4)


def test_three_columns_are_the_graph_challenges(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("1\t2\t1\n")
    assert_is_batch(load_inputs(tmp_path / "x.tsv", 3), np.array([[0, 1, 0]]))
    (tmp_path / "x.tsv").write_text("1\t2\t1\t0\t0\n")
    with pytest.raises(
        FileFormatError, match=r"x\.tsv, line 1: 5 columns; expected sample, feature and value, or 4 features"
    ):
        load_inputs(tmp_path / "x.tsv", 4)
