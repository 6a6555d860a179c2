"""Output paths of every command that writes: links, pipes, missing permissions and full disks."""

from __future__ import annotations

import errno
import io
import os
import re
import resource
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fsd_inference.aws.clients import Clients
from fsd_inference.aws.package.archive import write_zip
from fsd_inference.aws.stack import save_stack
from fsd_inference.cli.failures import explain
from fsd_inference.cost.prices import load_prices
from fsd_inference.errors import InputError, OutputError
from fsd_inference.forecast import calibration
from fsd_inference.network import random_network
from fsd_inference.partitioning import write_shards
from fsd_inference.partitioning.plan import Partition
from fsd_inference.session import Inference, Session
from fsd_inference.stack_description import StackSpec
from tests.support.cli import Fsd, entries, fsd_in
from tests.support.reports import made_up

FILES = {
    "answer": "infer net x.npy -o OUT.npz",
    "labels": "infer net x.npy -o OUT.npy --argmax",
    "categories": "infer net x.npy -o y.npz --categories OUT",
    "inputs": "dataset digits --neurons 64 --samples 3 -o OUT.csv",
    "page": "report run -o OUT",
    "timing": "calibrate -o OUT",
    "prices": "prices update --region us-east-1 -o OUT",
    "trace": "study net --pattern bursty --queries-per-day 5 --batch 4 --most-workers 2 --write-trace OUT",
    "plot": "advise net --batch 4 --most-workers 2 -o OUT.png",
}
DIRECTORIES = {
    "generated": "network generate random --neurons 9 --layers 2 -o OUT",
    "imported": "network import tsv --bias 0 -o OUT",
    "shards": "partition net --workers 2 --method block -o OUT",
}
REPORTS = {
    "report": "infer net x.npy -o y.npz --report OUT --plots",
    "simulated": "simulate net --samples 4 --workers 2 --report OUT",
}
COMMANDS = FILES | DIRECTORIES | REPORTS


@pytest.fixture
def fsd(capsys: pytest.CaptureFixture[str]) -> Fsd:
    return fsd_in(capsys)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    random_network((12, 10, 8), 4, seed=4).save(folder / "net")
    np.save(folder / "x.npy", np.ones((3, 12), np.float32))
    made_up(2).save(folder / "run")
    (folder / "tsv").mkdir()
    (folder / "tsv" / "n4-l1.tsv").write_text("".join(f"{i}\t{o}\t1\n" for i in range(1, 5) for o in range(1, 5)))
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aws_configuration: pytest.MonkeyPatch) -> Path:
    """A folder with what the commands read, in which they run, and a folder `far`."""
    shutil.copytree(made, tmp_path / "work")
    (tmp_path / "work" / "far").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(calibration, "NEURONS", (64,))
    monkeypatch.setattr(calibration, "SAMPLES", (1,))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        aws_configuration.setenv(name, "test")
    monkeypatch.setattr(Clients, "pricing", None)
    monkeypatch.setattr("fsd_inference.aws.price_list.fetch_prices", lambda *_: load_prices())
    return tmp_path / "work"


def split(command: str, name: str = "out") -> tuple[list[str], Path]:
    """Return a command's arguments, and the path that it writes to."""
    if command.startswith(("advise", "infer")):
        pytest.importorskip("matplotlib", reason="no matplotlib: pip install 'fsd-inference[report]' to draw plots")
    place = next(word for word in command.split() if word.startswith("OUT"))
    name += place.removeprefix("OUT")
    return [name if word == place else word for word in command.split()], Path(name)


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_link_stays_and_what_it_leads_to_is_written(fsd: Fsd, place: Path, kind: str) -> None:
    arguments, out = split(COMMANDS[kind])
    target = Path("far/target")
    out.symlink_to(target)
    for _ in ("made", "replaced"):
        said = fsd(*arguments)
        assert said.code == 0, said.stderr
        assert out.is_symlink()
        assert target.is_dir() is (kind not in FILES)
        assert entries(Path("far")) == {"target"}
        if target.is_dir():
            assert entries(target)
            shutil.rmtree(target)
            target.mkdir()
        else:
            assert target.stat().st_size > 0
            target.write_bytes(b"")


@pytest.mark.parametrize("kind", FILES)
def test_a_pipe_gets_what_a_file_would(fsd: Fsd, place: Path, kind: str) -> None:
    arguments, out = split(FILES[kind])
    assert fsd(*arguments).code == 0
    expected = out.read_bytes()
    out.unlink()
    os.mkfifo(out)
    before = entries(place)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(out.read_bytes()), daemon=True)
    reader.start()
    said = fsd(*arguments)
    reader.join(60)
    assert said.code == 0, said.stderr
    assert out.is_fifo()
    assert entries(place) == before
    assert found[0][:20] == expected[:20]
    assert len(found[0]) == pytest.approx(len(expected), rel=0.1)  # times and measurements differ


@pytest.mark.parametrize("kind", COMMANDS)
def test_nothing_is_written_where_stdout_is(fsd: Fsd, place: Path, kind: str) -> None:
    arguments, out = split(COMMANDS[kind])
    out.symlink_to("second")
    Path("second").symlink_to("/proc/self/fd/1")
    before = entries(place)
    said = fsd(*arguments)
    assert said.code == 2
    assert said.error().startswith(
        f"{out}, which leads to /proc/self, cannot be written: /dev and /proc hold no ordinary files"
    )
    assert said.stdout == ""
    assert entries(place) == before


@contextmanager
def no_space(after: int = 0) -> Iterator[None]:
    """Let no file grow beyond some bytes, as on a full disk, but with another error number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_full_disk_is_one_line_that_names_the_path(fsd: Fsd, place: Path, kind: str) -> None:
    arguments, out = split(COMMANDS[kind])
    before = entries(place)
    with no_space():
        said = fsd(*arguments, "--json")
    assert said.code == 1
    assert re.match(rf"(/.*/)?({out}|y\.npz)\S* cannot be written: ", said.error())
    assert said.error().partition(" (os error")[0].endswith("File too large")
    assert said.json()["error"]["type"] == "OutputError"
    assert said.json()["error"]["retryable"] is True
    assert entries(place) == before


@pytest.mark.parametrize(
    "save",
    [
        lambda path: made_up(2).save(path, plots=True),
        lambda path: made_up(2).save(path / "deep"),
        lambda path: save_stack(StackSpec("n", None, "eu-west-1", (), ("a",), "b"), path),
        lambda path: write_zip(Path("run"), path),
        lambda path: random_network((9, 9), 3).save(path),
    ],
    ids=["report", "report in a new folder", "stack", "zip", "network"],
)
def test_functions_leave_nothing_on_a_full_disk(save: Callable[[Path], object], place: Path) -> None:
    pytest.importorskip("matplotlib", reason="no matplotlib: pip install 'fsd-inference[report]' to draw plots")
    before = entries(place)
    with no_space(), pytest.raises(OutputError, match=r"out.* cannot be written: .*File too large"):
        save(Path("out"))
    assert entries(place) == before


def test_a_report_that_is_there_stays_whole_on_a_full_disk(place: Path) -> None:
    texts = {name: Path("run", name).read_bytes() for name in entries(Path("run"))}
    with no_space(), pytest.raises(OutputError):
        made_up(3).save("run")
    assert {name: Path("run", name).read_bytes() for name in entries(Path("run"))} == texts


def test_files_of_a_report_may_be_links(place: Path) -> None:
    Path("run/report.html").unlink()
    Path("run/report.html").symlink_to("../far/page.html")
    made_up(3).save("run")
    assert Path("run/report.html").is_symlink()
    assert Path("far/page.html").read_text().startswith("<!doctype html>")


def test_temporary_shards_name_their_folder_on_a_full_disk(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(place / "far"))
    partition = Partition(1, tuple(np.zeros(n, np.int32) for n in (10, 8)))
    network = random_network((12, 10, 8), 4)
    with no_space(), pytest.raises(OutputError, match=r"created in .*/far \(File too large\): set TMPDIR"):
        write_shards(network, partition, lambda *_: None)
    with no_space(100), pytest.raises(OutputError, match=r"/far/fsd-.*shards-\w+ cannot be written: File too large"):
        write_shards(network, partition, lambda *_: None)
    assert entries(place / "far") == set()


@pytest.mark.parametrize("there", [{"manifest.json"}, {"manifest.json", "plan.safetensors", "letters"}])
def test_shards_replace_nothing_else(fsd: Fsd, place: Path, there: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def partitions(*_: object, **__: object) -> None:
        raise AssertionError("this takes long")

    monkeypatch.setattr("fsd_inference.partitioning.cutting.partition_network", partitions)
    for name in there:
        Path("far", name).write_text("precious")
    said = fsd("partition", "net", "--workers", 2, "-o", "far")
    assert said.code == 2
    assert "far already exists and holds no shards" in said.error()
    assert entries(Path("far")) == there


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("infer net x.npy -o run/report.json --report run", "report and output are both run/report.json"),
        ("infer net x.npy -o y.npz --categories run/trace.json --report run", "report and categories are both"),
        ("report run -o run/report.json", "DIR and output are both run/report.json"),
        ("report run/report.json -o hard", "DIR and output are both run/report.json and hard"),
        ("calibrate --runs run -o hard", "runs and output are both run/report.json and hard"),
        ("package zip --wheel x.npy -o x.npy", "wheel and output are both x.npy"),
        ("partition net --workers 2 -o link", "NETWORK and output are both net and link"),
        ("infer net far -o x.npy", "INPUT and output are both far/part.npy and x.npy"),
        ("infer net x.npy -o link/../x.npy", "INPUT and output are both x.npy and link/../x.npy"),
    ],
)
def test_no_command_writes_over_what_it_reads(fsd: Fsd, place: Path, arguments: str, said: str) -> None:
    Path("hard").hardlink_to("run/report.json")
    Path("link").symlink_to("net")
    Path("far/part.npy").hardlink_to("x.npy")
    told = fsd(*arguments.split())
    assert told.code == 2
    assert said in told.error()


def test_a_stack_is_taken_down_through_a_link(fsd: Fsd, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsd_inference.aws.local.take_down", lambda _: None)
    Path("stack.json").symlink_to("far/stack.json")
    save_stack(StackSpec("n", None, "eu-west-1", (), ("a",), "b"), Path("stack.json"))
    assert fsd("stack", "down").code == 0
    assert entries(Path("far")) == set()
    assert Path("stack.json").is_symlink()


def _away(out: Path) -> None:
    shutil.rmtree(out.parent)


def _directory(out: Path) -> None:
    out.mkdir()


def _report_is_file(_: Path) -> None:
    Path("reported").write_text("")


def _lead_out(out: Path) -> None:
    out.symlink_to("/proc/self/fd/1")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_away, "far is not a directory"),
        (_directory, "out.npz is a directory"),
        (_report_is_file, "reported is a file, but the output is a directory"),
        (_lead_out, "/dev and /proc hold no ordinary files"),
    ],
)
def test_a_place_that_changes_during_a_run(
    fsd: Fsd, place: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], said: str
) -> None:
    infer = Session.infer

    def changes(*arguments: Any, **settings: Any) -> Inference:
        inference = infer(*arguments, **settings)
        change(Path("far/out.npz"))
        return inference

    monkeypatch.setattr(Session, "infer", changes)
    told = fsd("infer", "net", "x.npy", "-o", "far/out.npz", "--categories", "alive.tsv", "--report", "reported")
    assert told.code == 2
    assert said in told.error()
    assert not Path("alive.tsv").exists()
    assert not Path("far/out.npz").is_file() or Path("far/out.npz").is_symlink()


def test_a_report_that_cannot_be_saved_hides_no_failed_run(
    fsd: Fsd, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OutputError("run cannot be written: No space left on device")

    monkeypatch.setattr("fsd_inference.report.Report.save", full)
    np.save("huge.npy", np.full((2, 12), 3e38, np.float32))
    said = fsd("infer", "net", "huge.npy", "-o", "out.npz", "--channel", "local", "--workers", 2, "--report", "run")
    assert said.code == 1
    assert "no report: run cannot be written: No space left on device\nerror: " in said.stderr
    assert "is not finite" in said.stderr or "neuron" in said.stderr


class _FullFile(io.StringIO):
    def write(self, _: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_full_disk_that_stdout_goes_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    call = fsd_in(capsys)
    monkeypatch.setattr("sys.stdout", _FullFile())
    said = call("prices", "show", *flags)
    assert (said.code, said.error()) == (1, "stdout: No space left on device")


def _tree_error(folder: Path) -> OSError:
    (folder / "from").mkdir()
    (folder / "from" / "file").write_text("content")
    with no_space(), pytest.raises(shutil.Error) as caught:
        shutil.copytree(folder / "from", folder / "to")
    return caught.value


def test_what_the_system_says_names_what_was_written(tmp_path: Path) -> None:
    full = errno.ENOSPC, os.strerror(errno.ENOSPC)
    copied = explain(OSError(*full, "from", None, "to"))
    assert (copied.text, copied.code, copied.retryable) == ("to: No space left on device", 1, True)
    nameless = explain(OSError(*full))
    assert "No space left on device" in nameless.text
    assert "TMPDIR" in nameless.text
    tree = explain(_tree_error(tmp_path))
    assert (tree.text, tree.code) == (f"{tmp_path}/to/file: [Errno 27] File too large", 1)
    for error in (InputError("x"), PermissionError(errno.EACCES, "x", "x"), OSError(errno.EROFS, "x", "x")):
        assert (explain(error).code, explain(error).retryable) == (2, False)
