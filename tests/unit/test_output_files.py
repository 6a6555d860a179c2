"""Tests of output formats: other tools read the same bits, and unknown suffixes are errors before a run starts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.errors import SettingError
from fsd_inference.network import (
    check_output_format,
    load_inputs,
    output_files,
    random_network,
    save_labels,
    save_outputs,
)
from fsd_inference.network.input_files import INPUT_FORMATS
from fsd_inference.network.output_files import OUTPUT_SUFFIXES
from tests.support.cli import Fsd, entries, fsd_in

LIMITS = np.finfo(np.float32)
ODD = [0.1, 1 / 3, 16777217, -1e-7, 1e21, LIMITS.max, LIMITS.min, LIMITS.tiny, LIMITS.smallest_subnormal, 0, 0, 5]
OUTPUTS = np.array(ODD, np.float32).reshape(4, 3)
LABELS = np.array([2, 0, 70000], np.int32)
OTHER = "use one of .npz, .npy, .csv, .parquet"


@pytest.fixture
def fsd(capsys: pytest.CaptureFixture[str]) -> Fsd:
    return fsd_in(capsys)


def need(suffix: str) -> None:
    if suffix.lower() == ".parquet":
        pytest.importorskip("pyarrow", reason="no pyarrow: pip install 'fsd-inference[tables]' to write tables")


def as_others_read(path: Path) -> NDArray[Any]:
    """Return outputs or labels of a file as its usual reader does."""
    suffix = path.suffix.lower()
    if suffix == ".npz":
        with np.load(path) as saved:
            if "labels" in saved:
                return np.asarray(saved["labels"])
        return np.asarray(sparse.load_npz(path).toarray())
    if suffix == ".npy":
        return np.asarray(np.load(path))
    if suffix == ".csv":
        return np.loadtxt(path, np.float32, delimiter=",")
    table: Any = pytest.importorskip("pyarrow.parquet").read_table(path)
    columns = [column.to_numpy() for column in table.columns]
    if table.column_names == ["label"]:
        return np.asarray(columns[0])
    assert table.column_names == [str(neuron) for neuron in range(len(columns))]
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("suffix", [*OUTPUT_SUFFIXES, ".CSV"])
@pytest.mark.parametrize("block", [1, 6, 100])
def test_outputs_are_what_other_tools_read(
    suffix: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(suffix)
    monkeypatch.setattr(output_files, "BLOCK_ENTRIES", block)
    file = tmp_path / f"y{suffix}"
    size = save_outputs(file, sparse.csr_array(OUTPUTS))
    assert size == file.stat().st_size
    found = as_others_read(file)
    assert found.dtype == np.float32
    assert found.tobytes() == OUTPUTS.tobytes()
    assert load_inputs(file, 3).toarray().tobytes() == OUTPUTS.tobytes()


@pytest.mark.parametrize("suffix", OUTPUT_SUFFIXES)
def test_labels_are_one_number_a_sample(suffix: str, tmp_path: Path) -> None:
    need(suffix)
    file = tmp_path / f"y{suffix}"
    assert save_labels(file, LABELS) == file.stat().st_size
    found = as_others_read(file)
    assert found.dtype == (np.float32 if suffix == ".csv" else np.int32)
    assert found.tolist() == LABELS.tolist()
    if suffix == ".csv":
        assert file.read_text() == "2\n0\n70000\n"


@pytest.mark.parametrize("suffix", OUTPUT_SUFFIXES)
def test_nothing_is_left_of_outputs_that_failed(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need(suffix)

    def breaks(*_: Any) -> None:
        raise RuntimeError("the disk broke")

    monkeypatch.setattr(output_files, "_write_csr" if suffix == ".npz" else "_blocks", breaks)
    with pytest.raises(RuntimeError, match="broke"):
        save_outputs(tmp_path / f"y{suffix}", sparse.csr_array(OUTPUTS))
    assert not entries(tmp_path)


@pytest.mark.parametrize("name", ["y", "y.txt", "y.npz.gz", "y.tsv", "npz"])
def test_other_suffixes_are_refused(name: str, tmp_path: Path) -> None:
    saves: list[tuple[Any, Any]] = [(save_outputs, sparse.csr_array(OUTPUTS)), (save_labels, LABELS)]
    for save, what in saves:
        with pytest.raises(SettingError) as caught:
            save(tmp_path / name, what)
        assert str(caught.value) == f"{tmp_path / name} has no suffix of an output format; {OTHER}"
    assert not entries(tmp_path)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ["pyarrow", *(name for name in sys.modules if name.startswith("pyarrow."))]:
        monkeypatch.setitem(sys.modules, module, None)
    check_output_format("y.npy")
    with pytest.raises(SettingError, match=r"^y\.parquet needs pyarrow, which .* 'fsd-inference\[tables\]'$"):
        check_output_format("y.parquet")


def test_the_command_refuses_other_suffixes_before_it_runs(
    fsd: Fsd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    random_network((9, 5), 3).save("net")
    for arguments in (
        ("infer", "net", "no.npz", "-o", "y.txt"),
        ("infer", "net", "no.npz", "-o", "y.txt", "--argmax"),
        ("dataset", "digits", "--neurons", 1000, "--samples", 3, "-o", "y.txt"),
    ):
        said = fsd(*arguments)
        assert (said.code, said.error()) == (2, f"y.txt has no suffix of an output format; {OTHER}")
    assert entries(tmp_path) == {"net"}


@pytest.mark.parametrize("suffix", OUTPUT_SUFFIXES)
def test_the_command_writes_outputs_or_labels(
    suffix: str, fsd: Fsd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(suffix)
    monkeypatch.chdir(tmp_path)
    random_network((12, 10, 8), 4, seed=4).save("net")
    Path("parts").mkdir()
    x = np.random.default_rng(3).random((7, 12), np.float32)
    np.savetxt("parts/part-2.csv", x[:4], delimiter=",", header=",".join("abcdefghijkl"))
    np.savetxt("parts/part-10.csv", x[4:], delimiter=",")
    np.save("x.npy", x)
    assert fsd("infer", "net", "x.npy", "-o", "expected.npy").code == 0
    expected = np.load("expected.npy")
    assert expected.any()
    said = fsd("infer", "net", "parts", "-o", f"y{suffix}")
    assert said.code == 0, said.stderr
    assert f"y{suffix}: 7 samples x 8 outputs" in said.stdout
    assert as_others_read(Path(f"y{suffix}")).tobytes() == expected.tobytes()
    said = fsd("infer", "net", "parts", "-o", f"y{suffix}", "--argmax", "--replicas", 2)
    assert said.code == 0, said.stderr
    assert f"y{suffix}: 7 labels" in said.stdout
    assert as_others_read(Path(f"y{suffix}")).tolist() == expected.argmax(axis=1).tolist()


def test_help_names_every_format(fsd: Fsd) -> None:
    said = fsd("infer", "--help").stdout
    known = {suffix for form in INPUT_FORMATS for suffix in form.suffixes} | set(OUTPUT_SUFFIXES)
    assert [suffix for suffix in known if suffix not in said and not suffix.endswith(".gz")] == []


def test_formats_are_in_the_guide() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "formats.md").read_text(encoding="utf-8")
    known = [suffix for form in INPUT_FORMATS for suffix in form.suffixes if not suffix.endswith(".gz")]
    assert [suffix for suffix in (*known, *OUTPUT_SUFFIXES) if f"`{suffix}`" not in guide] == []
