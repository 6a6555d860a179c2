"""The container image of docker/build: it answers Lambda's invocations and contains only the expected files.

`make e2e` builds the image and sets FSD_IMAGE to its name.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsd_inference.aws.clients import Clients
from fsd_inference.aws.package.contents import LOCK
from fsd_inference.aws.package.prune import SERVICES
from fsd_inference.aws.status import status_key
from tests.support.functions import functions_stack
from tests.support.image import BASE, SBOM, Container
from tests.support.runtime_api import Answer, RuntimeApi

pytestmark = [
    pytest.mark.image,
    pytest.mark.skipif("FSD_IMAGE" not in os.environ, reason="no image was built; `make e2e` builds and tests one"),
]

LIMIT_MB = 150
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # buildah's, where a base names none


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    container = Container(os.environ["FSD_IMAGE"])
    yield container
    container.close()


@pytest.fixture(scope="module")
def base() -> Iterator[Container]:
    container = Container(BASE)
    yield container
    container.close()


def invoke(container: Container, event: object, *command: str, **environment: str) -> Answer:
    """Run the image as Lambda does, hand it one event and return its answer."""
    with RuntimeApi(event) as api:
        line = (*container.config["Entrypoint"], *(command or container.config["Cmd"]))
        done = container.run(*line, environment={**api.environment, **environment}, timeout_s=120)
    assert len(api.answers) == 1, done.stdout
    return api.answers[0]


def test_a_worker_refuses_an_event_of_another_version(container: Container) -> None:
    answer = invoke(container, {"version": 999})
    assert answer.kind == "error"
    assert answer.body["errorType"] == "FileFormatError"
    assert answer.body["errorMessage"].startswith("the event has version 999, and these functions read version ")


@pytest.mark.emulator
def test_a_coordinator_reads_its_stack_and_stores_what_became_of_a_run(container: Container, tmp_path: Path) -> None:
    run = "0" * 32
    with functions_stack(tmp_path, ranks=1, lanes=1) as stack:
        environment = {
            "FSD_STACK_BUCKET": stack.network_bucket,
            "AWS_ENDPOINT_URL": str(stack.endpoint_url),
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }
        handler = "fsd_inference.aws.handlers.coordinator.handle"
        answer = invoke(container, {"version": 999, "run": run}, handler, **environment)
        clients = Clients.of_stack(stack)
        store = clients.open_bucket(stack.run_buckets[0])
        stored = store.get(status_key(run))
        store.close()
        clients.close()
    assert answer.kind == "response"
    assert answer.body["state"] == "failed"
    assert answer.body["error"]["message"].startswith("the event has version 999, and these functions read version ")
    assert stored is not None
    assert json.loads(stored) == answer.body


def test_the_image_is_a_worker_unless_told_otherwise(container: Container) -> None:
    assert container.config["Entrypoint"] == ["python3", "-m", "awslambdaric"]
    assert container.config["Cmd"] == ["fsd_inference.aws.handlers.worker.handle"]
    assert container.config["WorkingDir"] == "/var/task"
    labels = container.config["Labels"]
    assert labels["org.opencontainers.image.title"] == "fsd-inference"
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", labels["org.opencontainers.image.revision"])


def test_it_has_what_is_locked_and_no_more(container: Container) -> None:
    task = container.root / "var" / "task"
    locked = set(re.findall(r"^([\w.-]+)==", LOCK.read_text(), flags=re.MULTILINE)) | {"fsd-inference"}
    installed = {path.name.partition("-")[0].replace("_", "-") for path in task.glob("*.dist-info")}
    assert installed == locked
    assert {path.name for path in (task / "botocore" / "data").iterdir() if path.is_dir()} == SERVICES
    listed = json.loads((container.root / "usr/share/doc/fsd-inference/sbom.json").read_text())
    assert {component["name"].replace("_", "-") for component in listed["components"]} == locked
    assert json.loads(SBOM.read_text()) == listed


def test_no_compiler_is_left(container: Container) -> None:
    for tool in ("cc", "gcc", "g++", "clang", "cargo", "rustc", "make", "maturin"):
        assert not [
            folder for folder in ("bin", "usr/bin", "usr/local/bin") if (container.root / folder / tool).exists()
        ]
    for folder in ("wheel", "function", "inventory", "src"):
        assert not (container.root / folder).exists()


def test_nothing_of_the_machine_that_built_it_is_left(container: Container, base: Container) -> None:
    for name in ("etc/pip.conf", "etc/ssl/certs/ca-certificates.crt", "root/.config/pip/pip.conf", "root/.cache"):
        ours, theirs = container.root / name, base.root / name
        assert ours.exists() == theirs.exists(), name
        assert not ours.is_file() or ours.read_bytes() == theirs.read_bytes(), name
    assert set(container.config["Env"]) - set(base.config.get("Env", [])) <= {
        "PYTHONPATH=/var/task",
        "MALLOC_ARENA_MAX=1",
        PATH,
    }
    added = {path for path in files(container.root) - files(base.root) if path.parts[:2] != ("var", "task")}
    assert added - {Path("etc/hosts")} == {Path("usr/share/doc/fsd-inference/sbom.json")}  # `buildah run` makes hosts


def test_any_user_can_read_it_all(container: Container) -> None:
    for path in (container.root / "var" / "task").rglob("*"):
        mode = path.stat().st_mode
        assert mode & stat.S_IROTH, path
        assert not path.is_dir() or mode & stat.S_IXOTH, path
        assert not mode & (stat.S_IWOTH | stat.S_ISUID | stat.S_ISGID), path


def test_it_is_small(container: Container, base: Container) -> None:
    over_base = sum((container.root / path).stat().st_size for path in files(container.root) - files(base.root))
    print(f"{over_base / 1e6:.0f} MB over the base")
    assert over_base < LIMIT_MB * 1e6


def files(root: Path) -> set[Path]:
    return {path.relative_to(root) for path in root.rglob("*") if path.is_file() and not path.is_symlink()}
