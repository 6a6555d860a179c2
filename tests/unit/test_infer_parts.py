"""Batches in parts: the outputs of the whole batch, one file after the other, in memory that parts do not add to."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.errors import FileFormatError, InputError, NumericError
from fsd_inference.network import input_files, load_inputs, load_parts, read_categories
from fsd_inference.network.input_files import InputFormat
from fsd_inference.report import Report
from tests.support.cli import Fsd, entries, fsd_in
from tests.support.runs import dense

FEATURES, SAMPLES, PARTS = 12, 7, 11
X = np.random.default_rng(2).integers(-3, 3, (PARTS * SAMPLES, FEATURES)).clip(0).astype(np.float32)


@pytest.fixture
def fsd_program(capsys: pytest.CaptureFixture[str]) -> Fsd:
    return fsd_in(capsys)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with the network `net` and the batch in the files `parts/part-0.npy` to `part-10.npy`."""
    network = fsd.random_network([FEATURES, 20, 8], 5, seed=4)
    network.save(tmp_path / "net")
    (tmp_path / "parts").mkdir()
    for number, part in enumerate(np.split(X, PARTS)):
        np.save(tmp_path / "parts" / f"part-{number}.npy", part)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(path: Path, suffix: str) -> np.ndarray[Any, Any]:
    if suffix == "npz":
        with np.load(path) as saved:
            return saved["labels"] if "labels" in saved else sparse.load_npz(path).toarray()
    return np.load(path) if suffix == "npy" else np.loadtxt(path, np.float32, delimiter=",")


@pytest.mark.parametrize(
    ("suffix", "flags"),
    [("npz", []), ("npy", ["--argmax"]), ("csv", ["--channel", "local", "--workers", "2"]), ("npz", ["--argmax"])],
)
def test_parts_are_the_whole(suffix: str, flags: list[str], place: Path, fsd_program: Fsd) -> None:
    whole = fsd_program("infer", "net", "parts", "-o", f"all.{suffix}", "--categories", "all.tsv", *flags, "--json")
    form = [] if suffix == "npz" else ["--format", suffix]
    more = ["--categories", "alive.tsv", "--report", "reports", "--json"]
    said = fsd_program("infer", "net", "parts", "-o", "out/", *form, *more, *flags).json()
    names = [f"part-{number}.{suffix}" for number in range(PARTS)]
    found = [read(place / "out" / name, suffix) for name in names]
    assert np.concatenate(found).tolist() == read(place / f"all.{suffix}", suffix).tolist()
    assert entries(place / "out") == set(names)
    assert read_categories(place / "alive.tsv").tolist() == read_categories(place / "all.tsv").tolist()
    assert [Path(part["output"]).name for part in said["parts"]] == names
    assert (said["samples"], said["alive"]) == (len(X), len(read_categories(place / "all.tsv")))
    assert whole.json()["samples"] == said["samples"]
    reports = [Report.load(place / "reports" / f"part-{number}") for number in range(PARTS)]
    assert sum(report.samples for report in reports) == len(X)
    assert said["wall_s"] == pytest.approx(sum(report.wall_s for report in reports))
    assert f"out: {PARTS} files" in fsd_program("infer", "net", "parts", "-o", "out/", *form, *flags).stdout


def test_one_file_is_one_part(place: Path, fsd_program: Fsd) -> None:
    assert fsd_program("infer", "net", "parts/part-3.npy", "-o", "out/").code == 0
    assert entries(place / "out") == {"part-3.npz"}


@pytest.mark.parametrize("feature", [0, 1])
def test_svmlight_parts_agree_on_the_first_feature(feature: int, place: Path) -> None:
    (place / "svm").mkdir()
    (place / "svm" / "a.svm").write_text("1 1:2 3:4\n")
    (place / "svm" / "b.svm").write_text(f"1 {feature}:5\n0\n")
    whole = load_inputs(place / "svm", 4).toarray()
    parts = [part.toarray() for _, part in load_parts(place / "svm", 4)]
    assert np.concatenate(parts).tolist() == whole.tolist()
    assert whole[0].nonzero()[0].tolist() == [1 - feature, 3 - feature]


@pytest.mark.parametrize(
    ("prepare", "arguments", "says"),
    [
        ("", ["parts", "-o", "out.npz", "--format", "csv"], "--format is for --output DIR/"),
        ("out/other.txt", ["parts", "-o", "out/"], "out holds other.txt, which is no output of parts"),
        ("parts/part-1.csv", ["parts", "-o", "out/"], "would both become out/part-1.npz; rename one of them"),
        ("", ["parts", "-o", "parts/"], "INPUT and output are both parts"),
        ("", ["parts", "-o", "parts"], "parts is a directory; write parts/ to get a file in it for each input file"),
        ("", ["parts", "-o", "net/parts/part/"], "net/parts is not a directory"),
        ("", ["parts", "-o", "out/", "--format", "doc"], "'--format': 'doc' is not one of"),
        ("parts/part-2.npy", ["parts", "-o", "out/"], "parts/part-2.npy: not an .npy array"),
        ("", ["nowhere", "-o", "out/"], "nowhere cannot be read"),
    ],
)
def test_what_cannot_be_done_is_said_before(
    prepare: str, arguments: list[str], says: str, place: Path, fsd_program: Fsd
) -> None:
    if prepare:
        (place / prepare).parent.mkdir(exist_ok=True)
        (place / prepare).write_text("no array")
    before = entries(place)
    said = fsd_program("infer", "net", *arguments)
    assert said.code == 2
    assert says in said.error()
    assert entries(place) == before


def test_a_part_that_fails_leaves_no_outputs(place: Path, fsd_program: Fsd) -> None:
    np.save(place / "parts" / "part-5.npy", np.full((2, FEATURES), 3e38))
    said = fsd_program("infer", "net", "parts", "-o", "out/", "--report", "reports", "--json")
    assert said.code == 1
    assert "parts/part-5.npy: " in said.stderr
    assert said.json()["error"]["type"] == NumericError.__name__
    assert entries(place) == {"net", "parts", "reports"}
    assert entries(place / "reports") == {f"part-{number}" for number in range(5)}
    np.save(place / "parts" / "part-6.npy", np.ones((2, FEATURES + 1)))
    with pytest.raises(InputError, match=r"part-6\.npy has 13 features per sample, but the network takes 12"):
        list(load_parts(place / "parts", FEATURES))


def test_sessions_answer_part_by_part(place: Path) -> None:
    taken = 0

    def parts() -> Iterator[np.ndarray[Any, Any]]:
        nonlocal taken
        for part in np.split(X, PARTS):
            taken += 1
            yield part

    with fsd.Session(place / "net") as session:
        whole = session.infer(X).outputs
        for source in (place / "parts", str(place / "parts"), parts()):
            answers = [answer.outputs for answer in session.infer_parts(source)]
            found = np.concatenate([dense(outputs) for outputs in answers])
            assert found.tobytes() == dense(whole).tobytes()
        taken = 0
        next(session.infer_parts(parts()))
        assert taken == 1
        with pytest.raises(FileFormatError, match="nowhere cannot be read"):
            next(session.infer_parts(place / "nowhere"))


def test_memory_does_not_grow_with_the_number_of_parts(place: Path, fsd_program: Fsd) -> None:
    part = np.random.default_rng(0).random((20_000, FEATURES), np.float32)

    def peak(count: int) -> int:
        folder = place / f"of-{count}"
        folder.mkdir()
        for number in range(count):
            np.save(folder / f"{number}.npy", part)
        tracemalloc.start()
        try:
            assert fsd_program("infer", "net", str(folder), "-o", f"out-{count}/").code == 0
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1)  # what is imported and cached
    few, many = peak(3), peak(9)
    assert few > part.nbytes
    assert many < few + part.nbytes


def test_what_does_not_fit_in_memory_is_one_sentence(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*_: object) -> Iterator[Any]:
        yield place, np.empty(1 << 60, np.uint8)

    monkeypatch.setattr(input_files, "_files_of", lambda folder: (InputFormat((".npz",), too_large), [folder]))
    with pytest.raises(FileFormatError, match=r"^parts holds more than fits in memory$"):
        load_inputs("parts")
    with pytest.raises(FileFormatError, match=r"^a file of parts holds more than fits in memory$"):
        list(load_parts("parts", 4))
