"""Zip files for Lambda: reproducible, written atomically, and rejected beyond Lambda's size limit."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

import pytest

from fsd_inference.aws.package import archive, write_zip
from fsd_inference.chaos.lambda_zip import code_zip
from fsd_inference.errors import FsdError, InputError


def a_folder(root: Path, *, reverse: bool = False, time: int = 0) -> Path:
    files = {"bootstrap": b"#!/bin/sh\n", "b/x.py": b"x = 1\n" * 100, "b/lib.so": b"\x7fELF...", "a.py": b""}
    root.mkdir()
    for name in sorted(files, reverse=reverse):
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(files[name])
        path.chmod(0o600)
        os.utime(path, (time, time))
    return root


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    one = write_zip(a_folder(tmp_path / "one"), tmp_path / "one.zip")
    two = write_zip(a_folder(tmp_path / "two", reverse=True, time=10**9), tmp_path / "two.zip")
    assert one.path.read_bytes() == two.path.read_bytes()
    assert one.sha256 == two.sha256
    assert one.zipped_bytes == one.path.stat().st_size
    assert (one.files, one.unpacked_bytes) == (4, 10 + 600 + 7)


def test_everyone_can_read_the_files_and_run_the_programs(tmp_path: Path) -> None:
    write_zip(a_folder(tmp_path / "one"), tmp_path / "one.zip")
    with zipfile.ZipFile(tmp_path / "one.zip") as written:
        modes = {entry.filename: stat.S_IMODE(entry.external_attr >> 16) for entry in written.infolist()}
    assert modes == {"a.py": 0o644, "b/lib.so": 0o755, "b/x.py": 0o644, "bootstrap": 0o755}
    assert list(modes) == sorted(modes)


def test_what_lambda_would_refuse_is_refused_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "UNPACKED_LIMIT", 616)
    output = tmp_path / "one.zip"
    output.write_text("the one before")
    with pytest.raises(FsdError, match="deploy an image instead"):
        write_zip(a_folder(tmp_path / "one"), output)
    assert output.read_text() == "the one before"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        write_zip(a_folder(tmp_path / "one"), tmp_path / "nowhere" / "one.zip")


def test_a_zip_of_our_code_alone_has_a_bootstrap_and_the_extension(tmp_path: Path) -> None:
    facts = code_zip(tmp_path / "code.zip", python="/some/python")
    with zipfile.ZipFile(facts.path) as written:
        names = written.namelist()
        assert b'exec "/some/python" -m awslambdaric "$_HANDLER"' in written.read("bootstrap")
    assert {name.partition("/")[0] for name in names} == {"bootstrap", "fsd_inference"}
    assert "fsd_inference/_kernels.abi3.so" in names
    assert "fsd_inference/aws/package/requirements.txt" in names
    assert not [name for name in names if "__pycache__" in name]
