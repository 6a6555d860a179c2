"""A small stack that Terraform makes from the project's module and deletes again in all endings."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from fsd_inference.atomic import naming
from fsd_inference.errors import InputError, SettingError, StackError

_QUIET = ("-no-color", "-input=false")
_LAST_LINES = 5


@contextmanager
def terraform_stack(module: Path, package: Path, folder: Path, *, region: str | None, ranks: int) -> Iterator[Path]:
    """Make a stack for a `with` block, and yield the path of its ``stack.json``.

    Parameters
    ----------
    module : Path
        The Terraform module (``terraform/`` of the project's repository).
    package : Path
        Zip of the functions, as made by ``fsd package zip``.
    folder : Path
        New folder for configuration and state; removed once the stack is deleted.
    region : str, optional
        AWS region; by default that of the AWS configuration.
    ranks : int
        Number of workers for which the one lane has queues.

    Raises
    ------
    SettingError
        Terraform is not installed.
    InputError
        The module or the package is missing, or the folder exists.
    StackError
        The stack could not be made, or not be deleted: then the folder stays, with Terraform's state in it.
    """
    if shutil.which("terraform") is None:
        raise SettingError("terraform is not installed: install it, or give a stack that exists with --stack")
    if not (module / "variables.tf").is_file():
        raise InputError(f"{module} is not the Terraform module: give the folder terraform/ of the project's sources")
    if not package.is_file():
        raise InputError(f"{package} is missing: make the package of the functions with fsd package zip -o {package}")
    if (left := stack_left(folder)) is not None:
        raise InputError(left)
    with naming(folder):
        folder.mkdir(parents=True)
        (folder / "main.tf.json").write_text(json.dumps(stack_configuration(module, package, region, ranks)))
    try:
        _terraform(folder, "init", *_QUIET)
        _terraform(folder, "apply", *_QUIET, "-auto-approve")
        path = folder / "stack.json"
        path.write_text(_terraform(folder, "output", "-raw", "stack_json"))
        yield path
    finally:
        _delete(folder)


def stack_left(folder: Path) -> str | None:
    """Return how to delete the stack whose state is in a folder of `terraform_stack`; None if there is no folder."""
    if not folder.exists():
        return None
    return f"a stack is left and goes on costing: run terraform -chdir={folder} destroy, then remove the folder"


def stack_configuration(module: Path, package: Path, region: str | None, ranks: int) -> dict[str, object]:
    """Return the content of ``main.tf.json``: the module with few queues and its ``stack.json`` as an output."""
    return {
        "provider": {"aws": {} if region is None else {"region": region}},
        "module": {
            "fsd": {
                "source": str(module.resolve()),
                "name": f"fsd-verify-{uuid4().hex[:6]}",
                "lanes": 1,
                "ranks": ranks,
                "package_type": "zip",
                "zip_path": str(package.resolve()),
                "metrics": False,  # which are billed by the month
                "force_destroy": True,
                "force_delete": True,
            }
        },
        "output": {"stack_json": {"value": "${module.fsd.stack_json}"}},
    }


def _delete(folder: Path) -> None:
    try:
        _terraform(folder, "destroy", *_QUIET, "-auto-approve")
    except BaseException as error:
        raise StackError(f"{stack_left(folder)} ({error})") from error
    shutil.rmtree(folder)


def _terraform(folder: Path, *arguments: str) -> str:
    """Run a Terraform command and return its output; if this is interrupted, let Terraform save its state first."""
    process = subprocess.Popen(  # noqa: S603
        ["terraform", f"-chdir={folder}", *arguments],  # noqa: S607 - the user's, wherever it is installed
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C reaches this process alone
    )
    try:
        output, errors = process.communicate()
    except BaseException:
        process.send_signal(signal.SIGINT)
        process.communicate()
        raise
    if process.returncode != 0:
        said = " ".join((errors.strip() or output.strip()).splitlines()[-_LAST_LINES:])
        raise StackError(f"terraform {arguments[0]} failed: {said}")
    return output
