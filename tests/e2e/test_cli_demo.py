"""End-to-end tests of `fsd demo` and `fsd infer` over an emulated AWS."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fsd_inference.network import digits, random_network, save_outputs
from fsd_inference.session import Session
from tests.support.cli import Fsd, entries, fsd_in

pytestmark = pytest.mark.emulator


@pytest.fixture
def fsd(capsys: pytest.CaptureFixture[str]) -> Fsd:
    return fsd_in(capsys)


def test_demo_says_what_it_must(fsd: Fsd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = fsd("demo", "--workers", 2, "--layers", 4, "--json")
    assert said.code == 0, said.stderr
    record = said.json()
    for channel in ("queue", "object"):
        ours = record[channel]
        assert ours["identical"] is True
        assert ours["alive"] == record["serial"]["alive"]
        assert ours["wall_s"] > 0
        assert sum(ours["requests"].values()) > 0
        assert 0 < ours["wire_bytes"] <= ours["body_bytes"]
        report = json.loads(Path(ours["report"]).read_text())
        assert (report["channel"], report["workers"], len(report["ranks"])) == (channel, 2, 2)
        assert report["requests"] == ours["requests"]
    assert entries(tmp_path) == {"runs"}


def test_demo_fails_if_an_answer_differs(fsd: Fsd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fsd_inference.cli.demo._CHANNELS", ("object",))
    infer = Session.infer

    def differently(self: Session, x: object) -> object:
        answer = infer(self, x)  # type: ignore[arg-type]
        if answer.report.workers > 1:
            assert answer.outputs is not None
            answer.outputs.data[0] += 1
        return answer

    monkeypatch.setattr(Session, "infer", differently)
    said = fsd("demo", "--workers", 2, "--layers", 2)
    assert said.code == 1
    assert "NO" in said.stdout.split()


@pytest.mark.usefixtures("aws_configuration")
def test_infer_on_a_stack_that_stays(fsd: Fsd, tmp_path: Path, emulator_url: str) -> None:
    random_network((64, 50, 40, 30), 6, seed=1).save(tmp_path / "net")
    save_outputs(tmp_path / "x.npz", digits(64, 20))
    stack = tmp_path / "stack.json"
    assert fsd("stack", "up", "--ranks", 2, "--endpoint-url", emulator_url, "-o", stack).code == 0
    run = ("infer", tmp_path / "net", tmp_path / "x.npz", "-o")
    assert fsd(*run, tmp_path / "serial.npz").code == 0
    for channel in ("queue", "object"):
        distributed = fsd(*run, tmp_path / "out.npz", "--channel", channel, "--workers", 2, "--stack", stack, "--json")
        assert distributed.code == 0, distributed.stderr
        assert distributed.json()["channel"] == channel
        assert (tmp_path / "out.npz").read_bytes() == (tmp_path / "serial.npz").read_bytes()
    too_many = fsd(*run, tmp_path / "more.npz", "--channel", "queue", "--workers", 3, "--stack", stack)
    assert too_many.code == 2
    assert "queues for 2 workers" in too_many.error()
    assert not (tmp_path / "more.npz").exists()
    assert fsd("stack", "down", stack).code == 0
