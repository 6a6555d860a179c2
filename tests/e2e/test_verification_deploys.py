"""`fsd verify-aws --terraform` with Terraform itself, on an emulator that has nothing before and after."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import boto3
import pytest

from fsd_inference.aws.emulator import start_emulator, stop_emulator
from fsd_inference.chaos.lambda_zip import code_zip
from fsd_inference.report.verification import Verification
from tests.support.cli import fsd_in
from tests.support.terraform import MODULE, Terraform, emulator_provider

pytestmark = [
    pytest.mark.emulator,
    pytest.mark.functions,
    pytest.mark.terraform,
    pytest.mark.deploys,
    pytest.mark.timeout(600),
]

# Terraform merges override files into the configuration that the command writes.
_PROGRAM = """#!/bin/sh
cp "{override}" "${{1#-chdir=}}/emulator_override.tf.json"
exec "{terraform}" "$@"
"""


def test_made_verified_and_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code_zip(tmp_path / "code.zip")
    emulator = start_emulator(tied=True)
    try:
        url = emulator.endpoint_url
        settings = {"endpoint_url": url, "zip_runtime": "provided.al2023", "purge_settle_s": 0}
        override = tmp_path / "override.json"
        override.write_text(json.dumps({"provider": {"aws": emulator_provider(url)}, "module": {"fsd": settings}}))
        program = tmp_path / "bin" / "terraform"
        program.parent.mkdir()
        program.write_text(_PROGRAM.format(override=override, terraform=shutil.which("terraform")))
        program.chmod(0o755)
        for name, value in Terraform(tmp_path / "rc").environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PATH", str(program.parent), prepend=":")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        output = tmp_path / "out"
        arguments = ("--terraform", MODULE, "--package", tmp_path / "code.zip", "--yes", "-o", output)
        said = fsd_in(capsys)("verify-aws", *arguments)
        assert said.code == 0, said.stderr
        record = Verification.from_json(json.loads((output / "verification.json").read_text()))
        assert record.is_good
        assert not (output / "terraform").exists()
        session = boto3.Session("test", "test", region_name="us-east-1")
        assert session.client("lambda", endpoint_url=url).list_functions()["Functions"] == []
        assert session.client("s3", endpoint_url=url).list_buckets()["Buckets"] == []
    finally:
        stop_emulator(emulator)
