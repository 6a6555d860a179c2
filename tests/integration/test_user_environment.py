"""Runs in realistic user environments: proxies, AWS configurations, unrelated variables and files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsd_inference.aws.local import temporary_stack
from fsd_inference.aws.provision import StackSettings
from fsd_inference.aws.stack import save_stack

pytestmark = pytest.mark.emulator

DEAD = "http://127.0.0.1:9"
PROGRAM = """
import json, sys
import numpy as np
import fsd_inference as fsd

network = fsd.random_network([32, 24, 16], connections=6, seed=1)
batch = np.random.default_rng(2).random((9, 32)) < 0.4
with fsd.Session(network, channel="serial") as session:
    expected = session.infer(batch, outputs="csr").outputs
stack = sys.argv[1] or None
for channel in sys.argv[2:]:
    with fsd.Session(network, channel=channel, workers=2, stack=stack if channel != "local" else None) as session:
        assert (session.infer(batch, outputs="csr").outputs != expected).nnz == 0, channel
print(json.dumps("answered"))
"""

PROXIES = {name: DEAD for base in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY") for name in (base, base.lower())}
VARIABLES: dict[str, dict[str, str]] = {
    "proxies": PROXIES,
    "a profile that is not there": {"AWS_PROFILE": "nobody"},
    "half a key pair": {"AWS_ACCESS_KEY_ID": "id"},
    "keys that cannot be sent": {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "a\nb"},
    "a configuration that does not parse": {"AWS_CONFIG_FILE": "broken", "AWS_SHARED_CREDENTIALS_FILE": "broken"},
    "other endpoints": {
        **dict.fromkeys(("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AWS_ENDPOINT_URL_SQS"), DEAD),
        **dict.fromkeys(("AWS_ENDPOINT_URL_SNS", "AWS_PROXY_URL"), DEAD),
    },
    "other ways to ask for objects": {
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_S3_EXPRESS": "true",
        "AWS_SERVER_SIDE_ENCRYPTION": "aws:kms",
        "AWS_ALLOW_HTTP": "false",
        "AWS_REQUEST_PAYER": "true",
    },
    "other endpoints of the SDK": {"AWS_USE_FIPS_ENDPOINT": "true", "AWS_USE_DUALSTACK_ENDPOINT": "true"},
    "nonsense for the SDK": {"AWS_MAX_ATTEMPTS": "many", "AWS_RETRY_MODE": "none such", "AWS_REGION": "no region"},
    "certificates that are not there": {"AWS_CA_BUNDLE": "/nowhere", "SSL_CERT_FILE": "/nowhere"},
    "settings of an emulator": {"SERVICES": "ec2", "USE_SSL": "1", "AUTH": "true", "GATEWAY_PORT": "1"},
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("stack") / "stack.json"
    with temporary_stack(StackSettings("users", ranks=2, purge_settle_s=0.0)) as made:
        save_stack(made, path)
        yield path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of data, in which some files have the names of modules."""
    for name in ("queue", "random", "numpy", "socket", "json", "botocore", "obstore", "ministack", "fsd_inference"):
        (tmp_path / f"{name}.py").write_text("print('this was run'); raise SystemExit(9)\n")
    (tmp_path / "broken").write_text("[profile x\nregion")
    return tmp_path


def answer(folder: Path, variables: dict[str, str], stack: Path | str, *channels: str) -> None:
    program = folder.parent / f"{folder.name}-program.py"  # its own folder is a place for modules
    program.write_text(PROGRAM)
    kept = {name: value for name, value in os.environ.items() if "PROXY" not in name.upper()}
    done = subprocess.run(
        [sys.executable, str(program), str(stack), *channels],
        cwd=folder,
        env=kept | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == "answered"


@pytest.mark.parametrize("kind", VARIABLES)
def test_variables_that_are_not_meant_for_a_stack(kind: str, folder: Path, stack: Path) -> None:
    answer(folder, VARIABLES[kind], stack, "queue", "object")


def test_all_of_them_and_a_stack_of_the_sessions_own(folder: Path) -> None:
    everything = {name: value for variables in VARIABLES.values() for name, value in variables.items()}
    answer(folder, everything, "", "local", "queue", "object")
