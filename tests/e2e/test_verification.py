"""`fsd verify-aws` on a stack with functions: complete, limited, without consent, and with failing services."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fsd_inference.aws.stack import load_stack, save_stack
from fsd_inference.chaos.proxy import Fault, FaultProxy, Request
from fsd_inference.report.verification import Verification
from tests.support.cli import Fsd, fsd_in
from tests.support.functions import functions_stack
from tests.support.terraform import MODULE
from tests.support.terraform_stand_in import stand_in

pytestmark = [pytest.mark.emulator, pytest.mark.functions]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("verification")
    with functions_stack(folder, ranks=4):
        yield folder


@pytest.fixture
def fsd(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Fsd:
    monkeypatch.chdir(place)
    return fsd_in(capsys)


def saved(folder: Path) -> Verification:
    assert (folder / "verification.html").exists()
    return Verification.from_json(json.loads((folder / "verification.json").read_text()))


def states(record: Verification) -> list[tuple[str, str]]:
    return [(run.name, run.state) for run in record.runs]


def test_all_runs_are_right_and_counted_as_predicted(fsd: Fsd, place: Path) -> None:
    said = fsd("verify-aws", "--stack", "stack.json", "--yes", "-o", "whole")
    assert said.code == 0, said.stderr
    record = saved(place / "whole")
    assert states(record) == [(name, "done") for name in ("serial P=1", "queue P=2", "queue P=4", "object P=2")]
    assert all(run.identical for run in record.runs)
    for run in record.runs:
        figures = {line.what: line for line in run.comparisons}
        assert figures["lambda.invoke"].ratio == 1
        if run.channel == "queue":
            assert figures["bytes sent"].ratio == 1
    assert 0 < record.spent_usd < 0.01
    assert record.totals["invocations"] == 2 + 3 + 5 + 3  # workers and a coordinator each


def test_a_run_above_the_limit_is_skipped(fsd: Fsd, place: Path) -> None:
    said = fsd("verify-aws", "--stack", "stack.json", "--yes", "-o", "limited", "--limit", "0.00015", "--json")
    record = saved(place / "limited")
    assert said.code == 1
    assert states(record)[:3] == [("serial P=1", "done"), ("queue P=2", "skipped"), ("queue P=4", "skipped")]
    assert "above the limit of 0.00015" in str(record.runs[1].note)
    assert not said.json()["passed"]


@pytest.mark.parametrize("answer", ["n\n", ""])
def test_nothing_runs_without_consent(fsd: Fsd, place: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    said = fsd("verify-aws", "--stack", "stack.json", "-o", "refused")
    assert said.code != 0
    assert "queue P=4" in said.stderr
    record = saved(place / "refused")
    assert {state for _, state in states(record)} == {"skipped"}
    assert record.spent_usd == 0


def test_services_that_fail_in_the_middle(fsd: Fsd, place: Path) -> None:
    stack = load_stack(place / "stack.json")
    invoked: list[Any] = []

    def refuse_second_run(request: Request) -> Fault | None:
        if request.path.endswith("/invocations"):
            invoked.append(request)
            if len(invoked) > 1:
                return Fault(status=403, body='{"message": "no more"}')
        return None

    with FaultProxy(str(stack.endpoint_url)) as proxy:
        proxy.hook = refuse_second_run
        save_stack(replace(stack, endpoint_url=proxy.url), place / "proxied.json")
        said = fsd("verify-aws", "--stack", "proxied.json", "--yes", "-o", "broken")
    record = saved(place / "broken")
    assert said.code == 1
    assert states(record) == [
        ("serial P=1", "done"),
        ("queue P=2", "failed"),
        ("queue P=4", "skipped"),
        ("object P=2", "skipped"),
    ]
    assert "no more" in str(record.runs[1].note)
    assert record.runs[1].spent_usd >= record.runs[1].predicted_usd  # what it cost is not known


@pytest.mark.parametrize("is_deletable", [True, False])
def test_a_stack_of_terraform_is_deleted_although_runs_fail(
    fsd: Fsd, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_deletable: bool
) -> None:
    """Terraform is a stand-in that knows a stack whose functions cannot be invoked."""
    stack = load_stack(place / "stack.json")
    output = f"made-{is_deletable}"
    (tmp_path / "code.zip").touch()
    with FaultProxy(str(stack.endpoint_url)) as proxy:
        save_stack(replace(stack, endpoint_url=proxy.url), tmp_path / "made.json")
        log = stand_in(tmp_path, monkeypatch, tmp_path / "made.json", failing="" if is_deletable else "destroy")
        proxy.hook = lambda request: (
            Fault(status=403, body='{"message": "no"}')
            if request.path.endswith("/invocations") and request.headers.get("x-amz-invocation-type") != "DryRun"
            else None
        )
        arguments = ("--terraform", MODULE, "--package", tmp_path / "code.zip", "--yes", "-o", output)
        said = fsd("verify-aws", *arguments)
    record = saved(place / output)
    assert said.code == 1
    assert [line.split()[1] for line in log.read_text().splitlines()] == ["init", "apply", "output", "destroy"]
    assert [state for _, state in states(record)] == ["failed", "skipped", "skipped", "skipped"]
    assert (place / output / "terraform").exists() is not is_deletable
    assert (record.left is None) is is_deletable
    assert is_deletable or f"terraform -chdir={output}/terraform destroy" in said.stderr


def test_a_stack_without_functions_is_refused(fsd: Fsd, place: Path) -> None:
    save_stack(replace(load_stack(place / "stack.json"), functions=None), place / "none.json")
    said = fsd("verify-aws", "--stack", "none.json", "--yes", "-o", "none")
    assert said.code == 2
    assert "has no functions to verify" in said.error()
    assert "has no functions" in str(saved(place / "none").problem)
