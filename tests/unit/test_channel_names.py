"""The former name of channel `local` still works, with a deprecation warning."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

import fsd_inference as fsd
from fsd_inference.run_report import RunReport
from tests.support.cli import fsd_in
from tests.support.runs import same, serial

NETWORK = fsd.random_network([16, 12, 8], connections=4, seed=2)
X = np.random.default_rng(0).random((6, 16), np.float32)


def test_a_session_warns_of_the_former_name() -> None:
    with pytest.warns(FutureWarning, match="'memory' is called 'local' now") as told:
        session = fsd.Session(NETWORK, channel="memory", workers=2)
    assert len(told) == 1
    assert told[0].filename == __file__
    with session:
        answer = session.infer(X)
    assert answer.report.channel == "local"
    assert same(answer.outputs, serial(NETWORK, X))


def test_the_present_name_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fsd.Session(NETWORK, channel="local", workers=2).close()


@pytest.mark.parametrize(("name", "said"), [("memory", 1), ("local", 0)])
def test_the_program_says_so_in_one_line(
    name: str, said: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    NETWORK.save(tmp_path / "net")
    np.save(tmp_path / "x.npy", X)
    flags = ["--channel", name, "--workers", 2, "--json", "-o", tmp_path / "out.npz"]
    done = fsd_in(capsys)("infer", tmp_path / "net", tmp_path / "x.npy", *flags)
    assert done.code == 0, done.stderr
    assert done.json()["channel"] == "local"
    lines = done.stderr.splitlines()
    assert len(lines) == said
    assert all(line.startswith("warning: the channel 'memory' is called 'local' now") for line in lines)


def test_a_name_that_no_release_knew_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(fsd.SettingError, match="channel must be one of serial, local, queue, object, not 'pigeon'"):
        fsd.Session(NETWORK, channel="pigeon")
    done = fsd_in(capsys)("infer", "net", "x.npy", "-o", "out.npz", "--channel", "pigeon")
    assert done.code == 2
    assert "'pigeon' is not one of serial, local, queue, object" in done.error()


def test_an_older_report_shows_the_present_name(tmp_path: Path) -> None:
    with fsd.Session(NETWORK, channel="local", workers=2) as session:
        session.infer(X).report.save(tmp_path / "run")
    path = tmp_path / "run" / "report.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "channel": "memory"}))
    assert RunReport.load(path).channel == "local"


def test_a_channel_that_is_only_modelled_is_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = (
        "the channel 'direct' is only modelled and cannot run: choose one of serial, local, queue, object, or predict "
        "it with `fsd simulate` or `fsd advise`"
    )
    with pytest.raises(fsd.SettingError, match=re.escape(said)):
        fsd.Session(NETWORK, channel="direct", workers=2)
    NETWORK.save(tmp_path / "net")
    refused = fsd_in(capsys)(
        "infer", tmp_path / "net", tmp_path / "x.npz", "-o", tmp_path / "out.npz", "--channel", "direct"
    )
    assert refused.code == 2
    assert said in " ".join(refused.stderr.replace("│", " ").split())
    assert not (tmp_path / "out.npz").exists()
