"""The configuration of the stack that `fsd verify-aws` makes, validated by Terraform itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fsd_inference.aws.terraform import stack_configuration
from tests.support.terraform import Terraform

pytestmark = pytest.mark.terraform


def test_terraform_accepts_the_configuration(tmp_path: Path) -> None:
    """Validation needs no account; it finds unknown settings of the module and outputs that do not exist."""
    terraform = Terraform(tmp_path / "root")
    module = terraform.copy_module()
    (tmp_path / "code.zip").touch()
    configuration = stack_configuration(module, tmp_path / "code.zip", "eu-west-1", 4)
    (terraform.directory / "main.tf.json").write_text(json.dumps(configuration))
    terraform.init()
    assert json.loads(terraform.run("validate", "-json").stdout)["valid"]
