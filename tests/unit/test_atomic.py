"""Atomic outputs: where they are written, what a failed write leaves behind, and which paths are refused."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fsd_inference import atomic
from fsd_inference.atomic import (
    atomic_directory,
    atomic_file,
    atomic_files,
    filled_directory,
    naming,
    place_of,
    write_text,
)
from fsd_inference.cli.outputs import check_distinct
from fsd_inference.errors import FsdError, InputError, OutputError, SettingError
from tests.support.cli import entries

PIPE_BYTES = 3 << 20  # far more than a pipe holds


def write_directory(path: Path, text: str = "new") -> None:
    with atomic_directory(path, holds="letters", replaceable=lambda folder: entries(folder) == {"letter"}) as folder:
        (folder / "letter").write_text(text)


def write_filled(path: Path) -> None:
    with filled_directory(path) as folder:
        write_text(folder / "letter", "new")


WRITERS: list[Callable[[Path], None]] = [lambda path: write_text(path, "new"), write_directory, write_filled]
EACH_WRITER = pytest.mark.parametrize("write", WRITERS, ids=["file", "directory", "filled"])


def written(path: Path) -> str:
    return (path / "letter" if path.is_dir() else path).read_text()


@EACH_WRITER
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("relative", [True, False])
def test_links_stay_and_what_they_lead_to_is_written(
    write: Callable[[Path], None], there: bool, relative: bool, tmp_path: Path
) -> None:
    far = tmp_path / "far"
    far.mkdir()
    if there:
        write(far / "target")
        written_before = far / "target"
        (written_before / "letter" if written_before.is_dir() else written_before).write_text("old")
    (tmp_path / "second").symlink_to("far/target" if relative else far / "target")
    (tmp_path / "first").symlink_to("../" + tmp_path.name + "/second" if relative else tmp_path / "second")
    write(tmp_path / "first")
    assert (tmp_path / "first").is_symlink()
    assert (tmp_path / "second").is_symlink()
    assert written(far / "target") == "new"
    assert entries(far) == {"target"}
    assert entries(tmp_path) == {"far", "first", "second"}


@EACH_WRITER
def test_a_link_in_the_way_to_a_place_is_followed(write: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "deep" / "far").mkdir(parents=True)
    (tmp_path / "near").symlink_to("deep/far")
    write(tmp_path / "near" / ".." / "target")  # as the system reads it: deep/far/..
    assert written(tmp_path / "deep" / "target") == "new"
    assert entries(tmp_path) == {"deep", "near"}


def test_a_link_to_another_file_system(tmp_path: Path) -> None:
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system to write to")
    target = memory / f"fsd-test-{os.getpid()}"
    (tmp_path / "link").symlink_to(target)
    try:
        write_text(tmp_path / "link", "new")
        assert target.read_text() == "new"
        assert (tmp_path / "link").is_symlink()
    finally:
        target.unlink()


KEPT = ["/proc/self/fd/1", "/dev/fsd", "//dev/fsd", "/dev/shm/../fsd", "/proc/self/fd", "/dev", "/proc"]


@EACH_WRITER
@pytest.mark.parametrize("target", KEPT)
@pytest.mark.parametrize("hops", [1, 2])
def test_nothing_is_written_among_devices_and_processes(
    write: Callable[[Path], None], target: str, hops: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("this was about to be written")

    for name in ("mkstemp", "mkdtemp"):
        monkeypatch.setattr(f"tempfile.{name}", refuse)
    path = target
    for hop in range(hops):
        (tmp_path / f"link{hop}").symlink_to(path)
        path = str(tmp_path / f"link{hop}")
    with pytest.raises(InputError, match=r"/dev and /proc hold no ordinary files|is a directory"):
        write(Path(path))
    if hops == 2:  # through a directory
        (tmp_path / "folder").symlink_to(Path(target).parent)
        with pytest.raises(InputError, match=r"/dev and /proc hold no ordinary files|is a directory"):
            write(tmp_path / "folder" / Path(target).name)


def test_a_directory_is_not_replaced_where_devices_are() -> None:
    with pytest.raises(InputError, match="/dev and /proc hold no ordinary files"):
        place_of("/dev/shm", directory=True)
    assert place_of("/dev/shm/fsd-test", directory=True) == Path("/dev/shm/fsd-test").resolve()


@EACH_WRITER
def test_links_that_lead_round(write: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(InputError, match="links form a loop"):
        write(tmp_path / "a")
    assert entries(tmp_path) == {"a", "b"}


@pytest.mark.parametrize("write", WRITERS[:2])
def test_a_link_into_a_folder_that_is_not_there(write: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("none/target")
    with pytest.raises(InputError, match="none is not a directory; make it first"):
        write(tmp_path / "link")
    with pytest.raises(InputError, match="none is not a directory; make it first"):
        write(tmp_path / "none" / ".." / "target")
    assert entries(tmp_path) == {"link"}


@EACH_WRITER
@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_link_into_a_folder_that_may_not_be_written(write: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    (tmp_path / "link").symlink_to("locked/target")
    with pytest.raises(InputError, match=r"cannot be written: you may not write to .*locked"):
        write(tmp_path / "link")


@EACH_WRITER
def test_sockets_are_refused(write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # sockets have short names
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
        with pytest.raises(InputError, match=r"is a socket|is a file, but the output is a directory"):
            write(Path("socket"))
        assert stat.S_ISSOCK(Path("socket").stat().st_mode)
    assert entries(tmp_path) == {"socket"}


def test_a_name_as_long_as_names_can_be(tmp_path: Path) -> None:
    for name in ("n" * 255, "é" * 127):
        write_text(tmp_path / name, "new")
        (tmp_path / name).unlink()
        write_directory(tmp_path / name)
    with pytest.raises(InputError, match="name too long"):
        write_text(tmp_path / ("n" * 256), "new")


@pytest.mark.parametrize("write", WRITERS[:2])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_permissions_are_those_of_what_was_there(write: Callable[[Path], None], mode: int, tmp_path: Path) -> None:
    place, before = tmp_path / "target", os.umask(0o027)
    try:
        write(place)
        assert stat.S_IMODE(place.stat().st_mode) == (0o750 if place.is_dir() else 0o640)
        place.chmod(mode | 0o700 if place.is_dir() else mode)
        expected = place.stat().st_mode
        write(place)
    finally:
        os.umask(before)
    assert place.stat().st_mode == expected


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files go; nothing may be left there."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    assert entries(folder) == set()


def reading(pipe: Path, size: int = -1) -> tuple[threading.Thread, list[bytes]]:
    """Read a pipe in a thread: all of it, or some bytes before leaving it."""
    found: list[bytes] = []

    def read() -> None:
        with pipe.open("rb", buffering=0) as file:
            found.append(file.readall() if size < 0 else file.read(size))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread, found


@pytest.mark.parametrize("linked", [True, False])
def test_a_pipe_gets_the_bytes_and_stays(pipe: Path, temporary: Path, linked: bool) -> None:
    (pipe.parent / "link").symlink_to("pipe")
    content = os.urandom(PIPE_BYTES)
    thread, found = reading(pipe)
    with atomic_file(pipe.parent / "link" if linked else pipe) as path:
        path.write_bytes(content)
    thread.join(60)
    assert found == [content]
    assert pipe.is_fifo()
    assert entries(pipe.parent) == {"pipe", "link"}


def test_a_pipe_gets_nothing_of_what_fails(pipe: Path, temporary: Path) -> None:
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with suppress(RuntimeError), atomic_file(pipe) as path:
            path.write_bytes(b"half")
            raise RuntimeError
        assert os.read(reader, 100) == b""
    finally:
        os.close(reader)


def test_a_pipe_that_nobody_reads(pipe: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "_TIMEOUT_S", 0.05)
    with pytest.raises(OutputError, match="pipe cannot be written: no process read it within"):
        write_text(pipe, "new")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(OutputError, match="pipe cannot be written completely: its reader read nothing"):
            write_text(pipe, "n" * PIPE_BYTES)
    finally:
        os.close(reader)


def test_a_pipe_whose_reader_leaves(pipe: Path, temporary: Path) -> None:
    thread, _ = reading(pipe, size=10)
    with pytest.raises(OutputError, match="pipe cannot be written: Broken pipe"):
        write_text(pipe, "n" * PIPE_BYTES)
    thread.join(60)


def test_a_full_disk_of_temporary_files_is_named(pipe: Path, temporary: Path) -> None:
    with pytest.raises(OutputError, match=f"{temporary}/.* cannot be written: No space left"), atomic_file(pipe):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@EACH_WRITER
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_a_full_disk_names_the_path_and_leaves_what_was_there(
    write: Callable[[Path], None], number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    def fails(path: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "write_text", full)
            with pytest.raises(OutputError, match=f"{path}.* cannot be written: {os.strerror(number)}") as caught:
                write(path)
        assert caught.value.retryable

    fails(tmp_path / "target")
    assert entries(tmp_path) == set()
    write(tmp_path / "target")
    fails(tmp_path / "target")
    assert written(tmp_path / "target") == "new"
    assert entries(tmp_path) == {"target"}


@pytest.mark.parametrize("write", WRITERS[:2])
def test_a_place_that_goes_away_meanwhile(write: Callable[[Path], None], tmp_path: Path) -> None:
    place = tmp_path / "folder" / "target"
    place.parent.mkdir()
    writer = atomic_file(place) if write is WRITERS[0] else atomic_directory(place, holds="", replaceable=bool)
    with pytest.raises(InputError, match="target cannot be written: No such file"), writer:
        shutil.rmtree(place.parent)
    assert entries(tmp_path) == set()


def test_a_place_that_becomes_a_directory_meanwhile(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="target cannot be written: Is a directory"), atomic_file(tmp_path / "target"):
        (tmp_path / "target").mkdir()
    assert entries(tmp_path) == {"target"}


def test_a_directory_that_cannot_take_its_place_puts_the_old_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_directory(tmp_path / "target", "old")
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if self.suffix == ".part":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OutputError, match="target cannot be written"):
        write_directory(tmp_path / "target")
    assert written(tmp_path / "target") == "old"
    assert entries(tmp_path) == {"target"}


def test_files_take_their_places_together(tmp_path: Path) -> None:
    (tmp_path / "first").write_text("old")
    with suppress(RuntimeError), atomic_files() as place:
        write_text(place(tmp_path / "first"), "new")  # a block inside a block
        place(tmp_path / "second").write_text("new")
        raise RuntimeError
    assert entries(tmp_path) == {"first"}
    assert written(tmp_path / "first") == "old"
    with atomic_files() as place:
        write_text(place(tmp_path / "first"), "new")
        write_text(place(tmp_path / "second"), "new")
    assert (written(tmp_path / "first"), written(tmp_path / "second")) == ("new", "new")
    assert entries(tmp_path) == {"first", "second"}


def test_a_block_inside_a_block_says_the_outer_path(tmp_path: Path) -> None:
    path = tmp_path / "target"
    with (
        pytest.raises(OutputError, match=f"^{path} cannot be written: No space left"),
        atomic_file(path) as outer,
        atomic_file(outer),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert entries(tmp_path) == set()


def test_parents_that_were_made_are_not_left(tmp_path: Path) -> None:
    for path in (tmp_path / "a" / "b", tmp_path / "a"):
        with pytest.raises(RuntimeError), filled_directory(path):
            raise RuntimeError
        assert entries(tmp_path) == set()
    (tmp_path / "a").mkdir()
    with pytest.raises(RuntimeError), filled_directory(tmp_path / "a"):
        raise RuntimeError
    assert entries(tmp_path) == {"a"}  # it was there


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, OutputError),
        (errno.EIO, OutputError),
        (errno.EROFS, InputError),
        (errno.EACCES, InputError),
        (errno.EPERM, InputError),
        (errno.ENAMETOOLONG, InputError),
    ],
)
def test_what_can_be_mended_is_told_from_what_is_wrong(number: int, kind: type[FsdError]) -> None:
    with pytest.raises(kind, match=r"^x cannot be written: "), naming("x"):
        raise OSError(number, os.strerror(number))


def test_two_names_of_one_place(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "hard").hardlink_to(file)
    (tmp_path / "folder").symlink_to(".")
    (tmp_path / "absent").symlink_to("nothing")
    (tmp_path / "round").symlink_to("round")
    for other in ("link", "hard", "folder/file", "folder/link"):
        with pytest.raises(SettingError, match="a and b are both"):
            check_distinct(a=file, b=tmp_path / other)
    with pytest.raises(SettingError, match="a and b are both"):
        check_distinct(a=tmp_path / "absent", c=None, b=tmp_path / "folder" / "nothing")
    check_distinct(a=file, b=tmp_path / "absent", c=tmp_path / "round", d=tmp_path)
