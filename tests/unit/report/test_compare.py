"""`fsd report`, the page that compares runs, and plots."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path

import pytest

from fsd_inference.cost.prices import load_prices
from fsd_inference.errors import SettingError
from fsd_inference.report.axes import axis_end
from fsd_inference.usage import Usage
from tests.support.cli import Fsd, entries, fsd_in
from tests.support.reports import made_up, rank_value


@pytest.fixture
def fsd(capsys: pytest.CaptureFixture[str]) -> Fsd:
    return fsd_in(capsys)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the reports `eight`, `two`, `serial` and `failed`."""
    made_up(8).save(tmp_path / "eight")
    made_up(2, samples=50, memory_mb=512).save(tmp_path / "two")
    made_up(1, ranks=[], channel="serial", usage=Usage()).save(tmp_path / "serial")
    error = {"type": "StallError", "message": "no frame from <rank 1>"}
    made_up(2, ranks=[rank_value(0, 2, 6)], error=error).save(tmp_path / "failed")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_runs_are_compared(fsd: Fsd, place: Path) -> None:
    said = fsd("report", "eight", "two/report.json", "serial", "failed")
    assert (said.code, said.stderr) == (0, "")
    lines = {line.split("│")[1].strip(): line.split("│")[2:-1] for line in said.stdout.splitlines() if "│" in line}
    assert lines.keys() >= {"channel", "P", "samples", "wall", "compute", "wait", "requests", "sent", "USD"}
    assert [each.strip() for each in lines["P"]] == ["8", "2", "1", "2"]
    assert [each.strip() for each in lines["wait"]] == ["0.300 s", "0.300 s", "0.000 s", "0.300 s"]
    assert "failed (failed)" in said.stdout
    (eight, two, serial, failed) = fsd("report", "eight", "two", "serial", "failed", "--json").json()["runs"]
    assert (eight["run"], eight["workers"], eight["requests"], eight["wire_bytes"]) == ("eight", 8, 142, 48_000)
    assert two["usd"] == pytest.approx(two["usd_per_sample"] * 50)
    assert (serial["requests"], failed["failed"], eight["failed"]) == (0, True, False)
    assert eight["prices_of"] == load_prices().date


def test_prices_and_memory_change_the_cost(fsd: Fsd, place: Path) -> None:
    def usd(*flags: str) -> list[float]:
        return [run["usd"] for run in fsd("report", "eight", "two", "--json", *flags).json()["runs"]]

    usual, larger = usd(), usd("--memory", "3538")
    assert usd("--memory", "1769")[0] == pytest.approx(usual[0])
    assert usd("--memory", "512")[1] == pytest.approx(usual[1])  # the report says its memory
    assert all(one < other for one, other in zip(usual, larger, strict=True))


def test_one_run_is_summed_up(fsd: Fsd, place: Path) -> None:
    said = fsd("report", "eight", "-o", "page.html")
    assert said.code == 0
    assert "142" not in said.stdout
    assert "40 sns.publish" in said.stdout
    assert "if its processes were functions" in said.stdout
    assert "if its processes were functions" not in fsd("report", "two").stdout
    assert Path("page.html").read_text() == Path("eight/report.html").read_text()


def test_a_page_compares(fsd: Fsd, place: Path) -> None:
    assert fsd("report", "eight", "two", "failed", "serial", "-o", "page.html").code == 0
    html = Path("page.html").read_text()
    assert "4 runs compared" in html
    assert html.count("<svg") == 7
    assert "failed failed: no frame from &lt;rank 1&gt;" in html
    assert "://" not in html
    assert entries(place) == {"eight", "two", "serial", "failed", "page.html"}


def test_runs_of_one_name_are_told_apart(fsd: Fsd, place: Path) -> None:
    made_up(2).save("other/two")
    runs = fsd("report", "two", "other/two", "--json").json()["runs"]
    assert [run["run"] for run in runs] == ["two", "other/two"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("nothing", "nothing: cannot be read"),
        ("two two", "a run is given twice"),
        ("two two/report.json", "a run is given twice"),
        ("two -o nowhere/page.html", "nowhere is not a directory"),
        ("two --region mars-1", "the package has no prices of region 'mars-1'"),
        ("two odd", "odd/report.json: is not a run's report: 'ranks[0].events[0]' must be a name"),
    ],
)
def test_bad_input_is_one_line(fsd: Fsd, place: Path, arguments: str, said: str) -> None:
    made_up(1, ranks=[]).save("odd")
    text = Path("odd/report.json").read_text()
    Path("odd/report.json").write_text(text.replace('"ranks": []', '"ranks": [{"rank": 0, "events": [1]}]'))
    failed = fsd("report", *arguments.split())
    assert failed.code == 2
    assert said in failed.error()


def test_plots(fsd: Fsd, place: Path) -> None:
    pytest.importorskip("matplotlib", reason="no matplotlib: pip install 'fsd-inference[report]' to draw plots")
    assert fsd("report", "eight", "serial", "--plots").code == 0
    pages = {"report.json", "report.html", "trace.json"}
    assert entries(place / "eight") == pages | {"timeline.png", "layers.png", "matrix.png"}
    assert entries(place / "serial") == pages  # it has no ranks to draw
    for name in ("timeline", "layers", "matrix"):
        data = (place / "eight" / f"{name}.png").read_bytes()
        assert data.startswith(b"\x89PNG")
        assert min(struct.unpack(">II", data[16:24])) > 300
    assert made_up(200, layers=3).save("many", plots=True).exists()
    assert entries(place / "many") == entries(place / "eight")


def test_without_matplotlib_it_says_what_to_install(fsd: Fsd, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "fsd_inference.report.plots.find_spec", lambda name: None if name == "matplotlib" else find(name)
    )
    failed = fsd("report", "eight", "--plots")
    assert (failed.code, entries(place / "eight")) == (2, {"report.json", "report.html", "trace.json"})
    assert failed.error() == "plots need matplotlib, which is not installed: pip install 'fsd-inference[report]'"
    with pytest.raises(SettingError, match="matplotlib"):
        made_up(1).save("new", plots=True)
    assert not Path("new").exists()
    assert "matplotlib" in fsd("infer", "net", "x.npy", "-o", "out.npz", "--report", "run", "--plots").error()
    assert "--report" in fsd("infer", "net", "x.npy", "-o", "out.npz", "--plots").error()


def test_where_an_axis_ends() -> None:
    assert axis_end([]) == 0
    assert axis_end([0.0, 0.0]) == 0
    assert axis_end([1.0, 2.0, 3.0]) == 3.0
    assert axis_end([1.0] * 40 + [100.0]) == pytest.approx(1.3)
    assert axis_end([0.0] * 40 + [5.0]) == 5.0
    assert axis_end([100.0] + [1.0] * 9) == 100.0  # one in ten is usual
