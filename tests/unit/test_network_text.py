"""The Graph Challenge's text files (images and categories) as various tools write them, and one-line errors."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fsd_inference.errors import FileFormatError, InputError
from fsd_inference.network import load_inputs, read_categories, tsv, write_categories
from tests.support.batches import BATCH, assert_is_batch


@given(alive=hnp.arrays(np.bool_, st.integers(0, 30)))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_categories_round_trip(alive: NDArray[np.bool_], tmp_path: Path) -> None:
    write_categories(tmp_path / "c.tsv", alive)
    np.testing.assert_array_equal(read_categories(tmp_path / "c.tsv"), np.flatnonzero(alive) + 1)


@pytest.mark.parametrize(
    ("alive", "says"),
    [(np.ones((2, 3), bool), "1-D"), (True, "1-D"), (np.ma.masked_array([True, True], mask=[True, False]), "masked")],
)
def test_categories_are_of_one_row_of_known_states(alive: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"mask of alive samples .*{says}"):
        write_categories(tmp_path / "c.tsv", alive)
    assert not list(tmp_path.iterdir())


def test_categories_are_the_official_format(tmp_path: Path) -> None:
    write_categories(tmp_path / "c.tsv", [False, True, False, True])
    assert (tmp_path / "c.tsv").read_bytes() == b"2\n4\n"


@pytest.mark.parametrize(
    "content",
    [
        b"2\r\n30\r\n",
        b"\xef\xbb\xbf2\n30",
        b" 2\t\n30 \n\n \n",
        b"2.0\n3e1\n",
        b"2\r30\r",
        gzip.compress(b"2\n30\n", mtime=0),
    ],
)
def test_categories_of_other_tools_are_understood(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "c.tsv").write_bytes(content)
    assert read_categories(tmp_path / "c.tsv").tolist() == [2, 30]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("0\n", 1),
        ("3\n3\n", 2),
        ("3\n\n2\n", 3),
        ("a\n", 1),
        ("-1\n", 1),
        ("1.5\n", 1),
        ("1 2\n", 1),
        ("1_0\n", 1),
        ("nan\n", 1),
        ("inf\n", 1),
        ("\n" + "9" * 30, 2),
        ("\xb2\n", 1),
        ("\u0661\n", 1),
    ],
)
def test_wrong_categories_are_refused(content: str, line: int, tmp_path: Path) -> None:
    (tmp_path / "c.tsv").write_text(content, encoding="utf-8")
    with pytest.raises(FileFormatError, match=rf"c\.tsv, line {line}: .* is not a sample number above") as caught:
        read_categories(tmp_path / "c.tsv")
    assert "\n" not in str(caught.value)


def test_missing_and_damaged_categories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_categories(tmp_path / "absent")
    (tmp_path / "c.tsv").write_bytes(gzip.compress(b"2\n30\n", mtime=0)[:-9])
    with pytest.raises(FileFormatError, match="truncated or damaged"):
        read_categories(tmp_path / "c.tsv")


# The Graph Challenge's images: sample, feature and value, both counted from 1.
IMAGES = b"1\t2\t1\n3\t1\t3\n1\t4\t2.5\n3\t4\t-1\n"


@pytest.mark.parametrize(
    "content",
    [
        IMAGES,
        IMAGES.rstrip(b"\n"),
        IMAGES.replace(b"\t", b" "),
        IMAGES.replace(b"\t", b" \t  "),
        IMAGES.replace(b"\n", b" \r\n"),
        IMAGES.replace(b"\n", b"\r"),
        b"\xef\xbb\xbf" + IMAGES,
        b"\n" + IMAGES.replace(b"\n", b"\n \n") + b"\n\n\t\n",
        IMAGES.replace(b"3\t", b"3.0\t").replace(b"4\t", b"+.4e1\t"),
        IMAGES + b"2\t2\t0\n2\t3\t-0.0\n",
    ],
)
def test_images_are_samples_features_and_values(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_bytes(content)
    (tmp_path / "X.TSV.GZ").write_bytes(gzip.compress(content[:20], mtime=0) + gzip.compress(content[20:], mtime=0))
    for name in ("x.tsv", "X.TSV.GZ"):
        for features in (4, None):
            assert_is_batch(load_inputs(tmp_path / name, features), BATCH)
    assert_is_batch(load_inputs(tmp_path / "x.tsv", 6), np.pad(BATCH, ((0, 0), (0, 2))))


def test_compression_is_told_by_content(tmp_path: Path) -> None:
    (tmp_path / "packed.tsv").write_bytes(gzip.compress(IMAGES, mtime=0))
    (tmp_path / "plain.tsv.gz").write_bytes(IMAGES)
    for name in ("packed.tsv", "plain.tsv.gz"):
        assert_is_batch(load_inputs(tmp_path / name, 4), BATCH)


def test_the_largest_sample_number_is_how_many_there_are(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_bytes(IMAGES + b"5\t1\t0\n")
    assert_is_batch(load_inputs(tmp_path / "x.tsv", 4), np.pad(BATCH, ((0, 2), (0, 0))))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"1\t2\t1\n\n1\t5\t1\n", "line 3: feature 5 is not a whole number in 1 to 4"),
        (b"0\t2\t1\n", "line 1: sample 0 is not a whole number in 1 to"),
        (b"1\t2\t1\r\n1\t1.5\t1\r\n", "line 2: feature 1.5 is not a whole number"),
        (b"1\t2\t1\n99999999999\t2\t1\n", "line 2: sample 99999999999 is not"),
        (b"1\t2\t1\n1\t3\t1e39\n", "line 2: value 1e39 is not a finite float32"),
        (b"1\t2\t1\n1\t3\tinf\n", "line 2: value inf is not a finite float32"),
        (b"1\t2\t1\n\n1\t2\t1\n", "line 3: sample 1 and feature 2 occur for the second time"),
        (b"1.0\t2\t1\n1\t3\n", r"line 2: '1\\t3' is not sample, feature and value"),
        (b"sample\tfeature\tvalue\n1\t1\t1\n", "line 1: 'sample.* is not sample, feature and value"),
        (b"1,2,1\n", "line 1: '1,2,1' is not sample, feature and value"),
        (b"16777217\t1\t1\n", "16777217 samples, but only 1 values"),
        ("1\t2\t1\n".encode("utf-16"), "line 1: .* is not sample, feature and value"),
        (gzip.compress(IMAGES, mtime=0)[:-10], "truncated or damaged"),
        (gzip.compress(IMAGES, mtime=0)[:-4] + b"1234", "truncated or damaged"),
        (gzip.compress(IMAGES, mtime=0)[:12] + b"\xff" + gzip.compress(IMAGES, mtime=0)[13:], "truncated or damaged"),
        (gzip.compress(IMAGES, mtime=0) + b"more", "truncated or damaged"),
    ],
)
def test_wrong_images_are_refused(content: bytes, says: str, tmp_path: Path) -> None:
    file = tmp_path / "x.tsv"
    file.write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        load_inputs(file, 4)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


NUMBERS = {
    "1": 1.0,
    "2": 2.0,
    "3.0": 3.0,
    "2e0": 2.0,
    "+2": 2.0,
    "0": 0.0,
    "1.5": 1.5,
    "-1": -1.0,
    "4": 4.0,
    "nan": np.nan,
}
NO_NUMBERS = "x", "1_0", "0x1", "1,5", ""


def plainly_read(lines: list[list[str]]) -> NDArray[np.float32] | int:
    """Return the batch of 3 features that lines say, or the number of the line that is wrong."""
    entries: dict[tuple[float, float], float] = {}
    again = 0
    for number, fields in enumerate(lines, 1):
        numbers = [NUMBERS.get(field, np.nan) for field in fields if field]
        if not numbers:
            continue
        if len(numbers) != 3 or numbers[0] not in {1, 2, 3, 4} or numbers[1] not in {1, 2, 3} or np.isnan(numbers[2]):
            return number
        if tuple(numbers[:2]) in entries:
            again = again or number
        entries[numbers[0], numbers[1]] = numbers[2]
    if again or not entries:
        return again
    batch = np.zeros((int(max(sample for sample, _ in entries)), 3), np.float32)
    for (sample, feature), value in entries.items():
        batch[int(sample) - 1, int(feature) - 1] = value
    return batch


@given(
    lines=st.lists(
        st.lists(st.sampled_from(["1", "2", *NUMBERS, *NO_NUMBERS][:9]), min_size=3, max_size=3)
        | st.lists(st.sampled_from([*NUMBERS, *NO_NUMBERS]), max_size=4),
        max_size=4,
    ),
    blank=st.sampled_from(["\t", " ", " \t"]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    is_old=st.booleans(),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_text_is_read_as_it_would_be_line_by_line(
    lines: list[list[str]], blank: str, end: str, is_old: bool, tmp_path: Path
) -> None:
    file = tmp_path / "x.tsv"
    file.write_bytes("".join(blank.join(fields) + end for fields in lines).encode())
    expected = plainly_read(lines)
    with pytest.MonkeyPatch.context() as patched:
        if is_old:  # as with a NumPy that would truncate 1.5 to an integer
            patched.setattr(tsv, "_NUMBERS", [np.float64])
        if isinstance(expected, int):
            with pytest.raises(FileFormatError, match=f"x.tsv, line {expected}: " if expected else "is empty"):
                load_inputs(file, 3)
        else:
            assert_is_batch(load_inputs(file, 3), expected)
