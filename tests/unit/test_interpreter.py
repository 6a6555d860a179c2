"""Child processes of this interpreter: which modules they find."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fsd_inference import interpreter


def output_of(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env=interpreter.environment(), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def module_at(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(text)


@pytest.mark.parametrize("python_path", [None, "", os.pathsep, f"{os.pathsep}/nowhere"])
def test_files_of_the_current_folder_are_no_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python_path: str | None
) -> None:
    """Whatever they are called, and although an empty entry of PYTHONPATH stands for that folder."""
    extra = tmp_path / "extra"
    module_at(extra, "asked_for", "import numpy, queue, random; print(numpy.__name__, queue.Queue.__name__)")
    here = tmp_path / "here"
    for name in ("queue", "random", "numpy", "runpy", "fsd_inference", "sitecustomize", "asked_for"):
        module_at(here, name, "print('not this one'); raise SystemExit(9)")
    monkeypatch.chdir(here)
    if python_path is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONPATH", python_path)
    monkeypatch.setattr(sys, "path", ["", str(here), str(extra), *sys.path])
    assert output_of(interpreter.command("asked_for"), here) == "numpy Queue"


def test_what_was_added_to_the_search_path_is_found_after_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = tmp_path / "extra"
    module_at(extra, "helper", "WORD = 'found'")
    module_at(extra, "queue", "raise SystemExit(9)")
    module_at(extra, "asked_for", "import sys, queue, helper; print(helper.WORD, sys.argv[1:])")
    monkeypatch.setattr(sys, "path", [str(extra), *sys.path])
    assert output_of(interpreter.command("asked_for", "a b", ""), tmp_path) == "found ['a b', '']"


def test_the_package_is_the_one_that_this_process_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not another one of its name that is found first."""
    other = tmp_path / "other"
    (other / "fsd_inference").mkdir(parents=True)
    (other / "fsd_inference" / "__init__.py").write_text("raise SystemExit(9)")
    module_at(other, "asked_for", "import fsd_inference.errors; print(fsd_inference.errors.__file__)")
    monkeypatch.setenv("PYTHONPATH", str(other))
    found = output_of(interpreter.command("asked_for"), tmp_path)
    assert Path(found) == Path(interpreter.__file__).with_name("errors.py")


def test_options_of_the_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module_at(tmp_path / "extra", "asked_for", "import sys; print(sys._xoptions, sys.flags.safe_path)")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "extra")])
    found = output_of(interpreter.command("asked_for", options=("-X", "mark=1")), tmp_path)
    assert found == "{'mark': '1'} True"


def test_a_current_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert interpreter.command("asked_for")[:2] == [sys.executable, "-P"]
