"""`fsd package zip` with its real libraries: a function that runs on this machine, and the wheels for other targets.

It downloads the locked libraries, so it runs only under `make e2e`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fsd_inference.aws.package import Target, add_libraries
from fsd_inference.chaos.lambda_zip import here
from tests.support.cli import Fsd, fsd_in
from tests.support.runtime_api import RuntimeApi

pytestmark = [
    pytest.mark.image,
    pytest.mark.skipif("FSD_IMAGE" not in os.environ, reason="libraries are downloaded by `make e2e` alone"),
]


@pytest.fixture
def fsd(capsys: pytest.CaptureFixture[str]) -> Fsd:
    return fsd_in(capsys)


def test_a_zip_answers_an_invocation_with_nothing_else_installed(fsd: Fsd, tmp_path: Path) -> None:
    target = here()
    output = tmp_path / "f.zip"
    said = fsd("package", "zip", "-o", output, "--arch", target.arch, "--python", target.python, "--json").json()
    assert said["unpacked_bytes"] < 150e6
    with zipfile.ZipFile(output) as written:
        written.extractall(tmp_path / "task")
    with RuntimeApi({"version": 999}) as api:
        # -S: without the environment of these tests. What is pruned must not be missed when clients are made.
        for program in (
            ["-c", "import boto3; [boto3.client(name) for name in ('lambda', 's3', 'sns', 'sqs', 'sts')]"],
            ["-m", "awslambdaric", "fsd_inference.aws.handlers.worker.handle"],
        ):
            environment = {**api.environment, "AWS_DEFAULT_REGION": "us-east-1"}
            done = subprocess.run(
                [sys.executable, "-S", *program],
                cwd=tmp_path / "task",
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
            assert program[0] == "-m" or done.returncode == 0, done.stderr
    (answer,) = api.answers
    assert answer.body["errorMessage"].startswith("the event has version 999")


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
@pytest.mark.parametrize("python", ["3.11", "3.13"])
def test_the_lock_serves_each_python_and_architecture(tmp_path: Path, arch: str, python: str) -> None:
    add_libraries(tmp_path, Target(arch, python))
    compiled = [path for path in tmp_path.rglob("*.so") if ".cpython-" in path.name]
    assert {path.relative_to(tmp_path).parts[0] for path in compiled} >= {"numpy", "simplejson"}
    machine = {"x86_64": 62, "arm64": 183}[arch]
    for path in compiled:
        assert f".cpython-{python.replace('.', '')}-" in path.name
        assert int.from_bytes(path.read_bytes()[18:20], "little") == machine, path
