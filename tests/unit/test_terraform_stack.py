"""Stacks that Terraform makes for a `with` block, with a stand-in for Terraform."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fsd_inference.aws.terraform import stack_left, terraform_stack
from fsd_inference.errors import InputError, SettingError, StackError
from tests.support.processes import wait_until
from tests.support.terraform import MODULE
from tests.support.terraform_stand_in import stand_in


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "stack.json").write_text("{}")
    (tmp_path / "code.zip").touch()
    return tmp_path / "code.zip"


def made(package: Path) -> list[str]:
    """Make and delete a stack; return the settings of the module by name."""
    folder = package.parent / "state"
    with terraform_stack(MODULE, package, folder, region="eu-west-1", ranks=4) as path:
        assert path.read_text() == "{}"
        configuration = json.loads((folder / "main.tf.json").read_text())
        assert configuration["provider"] == {"aws": {"region": "eu-west-1"}}
        return list(configuration["module"]["fsd"])


def commands(log: Path) -> list[str]:
    return [line.split()[1] if line.startswith("-chdir") else line for line in log.read_text().splitlines()]


def test_settings_exist_in_the_module_and_nothing_is_left(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = stand_in(package.parent, monkeypatch, package.parent / "stack.json")
    variables = (MODULE / "variables.tf").read_text()
    for name in made(package):
        assert name == "source" or f'variable "{name}"' in variables
    assert commands(log) == ["init", "apply", "output", "destroy"]
    assert stack_left(package.parent / "state") is None


def test_a_stack_that_was_made_in_part_is_deleted(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = stand_in(package.parent, monkeypatch, package.parent / "stack.json", failing="apply")
    with pytest.raises(StackError, match="terraform apply failed: cannot apply"):
        made(package)
    assert commands(log) == ["init", "apply", "destroy"]
    assert not (package.parent / "state").exists()


def test_the_state_of_a_stack_that_stays_is_kept_and_named(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(package.parent, monkeypatch, package.parent / "stack.json", failing="destroy")
    with pytest.raises(StackError, match=r"run terraform -chdir=\S+state destroy.*cannot destroy"):
        made(package)
    assert (package.parent / "state" / "main.tf.json").exists()
    with pytest.raises(InputError, match="a stack is left"):  # another would overwrite its state
        made(package)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Have programs start with SIGINT's default: where the tests run in the background it may be ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_terraform_ends_by_itself_and_the_stack_is_deleted(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = stand_in(package.parent, monkeypatch, package.parent / "stack.json", slow="apply")

    class Interrupted(subprocess.Popen):  # type: ignore[type-arg]
        """A process whose first wait is interrupted, once the command has begun."""

        waits = 0

        def communicate(self, *arguments: Any, **more: Any) -> Any:
            Interrupted.waits += "apply" in str(self.args)
            if Interrupted.waits == 1 and "apply" in str(self.args):
                wait_until(lambda: "apply" in log.read_text(), "apply begins", 20)
                threading.Event().wait(0.2)  # until its trap is set
                raise KeyboardInterrupt
            return super().communicate(*arguments, **more)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        made(package)
    assert commands(log) == ["init", "apply", "stopped", "destroy"]
    assert not (package.parent / "state").exists()


def test_what_is_missing_is_named(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(package.parent))
        with pytest.raises(SettingError, match="terraform is not installed"):
            made(package)
    stand_in(package.parent, monkeypatch, package.parent / "stack.json")
    package.unlink()
    with pytest.raises(InputError, match="fsd package zip"):
        made(package)
