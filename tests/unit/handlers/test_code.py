"""The code digest changes if and only if one of the code's files changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fsd_inference.aws.handlers.code import code_digest


def package(folder: Path) -> Path:
    (folder / "aws").mkdir(parents=True)
    (folder / "a.py").write_text("a")
    (folder / "aws" / "b.py").write_text("b")
    (folder / "k.abi3.so").write_bytes(b"\x7fELF")
    return folder


def test_the_same_files_elsewhere(tmp_path: Path) -> None:
    one, other = package(tmp_path / "one"), package(tmp_path / "other")
    (other / "__pycache__").mkdir()
    (other / "__pycache__" / "a.pyc").write_bytes(b"compiled")
    assert code_digest(one) == code_digest(other)
    assert len(code_digest(one)) == 32


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "a.py").write_text("A"),
        lambda folder: (folder / "aws" / "b.py").rename(folder / "b.py"),
        lambda folder: (folder / "k.abi3.so").write_bytes(b"\x7fELG"),
        lambda folder: (folder / "c.py").write_text(""),
    ],
)
def test_other_files(change: Callable[[Path], object], tmp_path: Path) -> None:
    one, other = package(tmp_path / "one"), package(tmp_path / "other")
    change(other)
    assert code_digest(one) != code_digest(other)
