"""Terraform for tests: deployments of the module in a separate directory, with the provider from a local mirror.

    with applied(tmp_path, emulator_url, name="fsd", lanes=1, ranks=3) as deployment:
        stack = parse_stack(json.loads(deployment.outputs["stack_json"]))

Tests that need Terraform are skipped with a message if it is not installed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

MODULE = Path(__file__).parents[2] / "terraform"
_MIRROR = Path(os.environ.get("FSD_TERRAFORM_MIRROR", "/opt/tf-plugins"))
_PARALLELISM = 64  # the provider waits for each queue; in parallel all take as long as one
_TIMEOUT_S = 600
_SERVICES = ("cloudwatch", "ecr", "iam", "kms", "lambda", "logs", "s3", "sns", "sqs", "sts")


def needs_terraform() -> None:
    """Skip the test if Terraform is not installed."""
    if shutil.which("terraform") is None:
        pytest.skip("Terraform is not installed: the deployment module is not tested")


class Terraform:
    """A working directory of Terraform.

    Parameters
    ----------
    directory : Path
        Path of the directory; created if missing.
    """

    def __init__(self, directory: Path) -> None:
        needs_terraform()
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        configuration = directory / "terraform.rc"
        configuration.write_text(_cli_configuration())
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("TF_", "AWS_"))
        } | {
            "TF_CLI_CONFIG_FILE": str(configuration),
            "TF_IN_AUTOMATION": "1",
            "CHECKPOINT_DISABLE": "1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "GOGC": "400",  # a quarter of its time was garbage collection of the provider's schema
        }

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a Terraform command; a failure raises AssertionError with its output."""
        done = subprocess.run(
            ["terraform", *arguments],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        if check and done.returncode != 0:
            command = " ".join(arguments)
            raise AssertionError(f"terraform {command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def copy_module(self) -> Path:
        """Copy the module into the working directory, so that its sources stay unmodified; return the copy's path."""
        target = self.directory / "module"
        shutil.copytree(MODULE, target, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
        return target

    def init(self) -> None:
        """Initialise the working directory, which installs the provider."""
        self.run("init", "-no-color", "-input=false", "-backend=false")


class Deployment(Terraform):
    """A deployment of the module on an emulator.

    Parameters
    ----------
    directory : Path
        Directory of configuration and state.
    endpoint_url : str
        Endpoint of the emulator.
    provider : mapping, optional
        Additional settings of the provider, such as ``access_key``, ``insecure`` or ``default_tags``.
    """

    def __init__(self, directory: Path, endpoint_url: str, provider: dict[str, Any] | None = None) -> None:
        super().__init__(directory)
        self.endpoint_url = endpoint_url
        self._provider = {
            **emulator_provider(endpoint_url),
            **(provider or {}),
        }
        self.copy_module()
        self._configure({"name": "unnamed"})
        self.init()

    def apply(self, **variables: Any) -> None:
        """Create or change the stack; by default with settings for an emulator, and such that it can be deleted."""
        self._configure(variables)
        self.run("apply", "-no-color", "-input=false", "-auto-approve", f"-parallelism={_PARALLELISM}")

    @property
    def outputs(self) -> dict[str, Any]:
        """The module's outputs."""
        found: dict[str, Any] = json.loads(self.run("output", "-json").stdout)["stack"]["value"]
        return found

    def changes(self) -> list[dict[str, Any]]:
        """Run ``terraform plan`` and return the planned changes; none if the stack is up to date."""
        plan = self.directory / "plan"
        self.run("plan", "-no-color", "-input=false", f"-parallelism={_PARALLELISM}", f"-out={plan}")
        shown = json.loads(self.run("show", "-json", str(plan)).stdout)
        return [
            change
            for change in shown.get("resource_changes", [])
            if change["change"]["actions"] not in (["no-op"], ["read"])
        ]

    def destroy(self) -> None:
        """Delete the stack."""
        self.run("destroy", "-no-color", "-input=false", "-auto-approve", f"-parallelism={_PARALLELISM}")

    def _configure(self, variables: dict[str, Any]) -> None:
        settings = {
            "endpoint_url": self.endpoint_url,
            "purge_settle_s": 0,
            "force_destroy": True,
            "force_delete": True,
            **{name: str(value) if isinstance(value, Path) else value for name, value in variables.items()},
        }
        root = {
            "provider": {"aws": self._provider},
            "module": {"stack": {"source": "./module", **settings}},
            "output": {"stack": {"value": "${module.stack}"}},
        }
        (self.directory / "main.tf.json").write_text(json.dumps(root, indent=2))


def emulator_provider(endpoint_url: str) -> dict[str, Any]:
    """Return the settings of the AWS provider for an emulator."""
    return {
        "region": "us-east-1",
        "access_key": "test",
        "secret_key": "test",
        "skip_credentials_validation": True,
        "skip_metadata_api_check": True,
        "skip_requesting_account_id": True,
        "s3_use_path_style": True,
        "endpoints": [dict.fromkeys(_SERVICES, endpoint_url)],
    }


@contextmanager
def applied(
    directory: Path, endpoint_url: str, *, provider: dict[str, Any] | None = None, **variables: Any
) -> Iterator[Deployment]:
    """Deploy the module for a `with` block."""
    deployment = Deployment(directory, endpoint_url, provider)
    try:
        deployment.apply(**variables)
        yield deployment
    finally:
        deployment.destroy()


def _cli_configuration() -> str:
    """Return a CLI configuration that installs the provider from the local mirror if there is one."""
    if not _MIRROR.is_dir():
        return ""
    return f'provider_installation {{\n  filesystem_mirror {{\n    path = "{_MIRROR}"\n  }}\n}}\n'
