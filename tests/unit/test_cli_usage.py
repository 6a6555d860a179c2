"""Help, version and wrong flags: what `fsd` prints before it does anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from fsd_inference import kernels
from fsd_inference.cli.main import run
from fsd_inference.cli.options import Method
from fsd_inference.partitioning import METHODS
from tests.support.cli import Fsd, entries, fsd_in

COMMANDS = (
    "demo",
    "diff",
    "infer",
    "partition",
    "push",
    "runs list",
    "runs show",
    "runs clean",
    "network generate",
    "network import",
    "network info",
    "network prune",
    "dataset digits",
    "stack up",
    "stack down",
    "stack show",
    "cost",
    "report",
    "prices show",
    "prices update",
)


@pytest.fixture
def fsd(capsys: pytest.CaptureFixture[str]) -> Fsd:
    return fsd_in(capsys)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_json(fsd: Fsd, command: str) -> None:
    said = fsd(*command.split(), "--help")
    assert said.code == 0
    assert f"  fsd {command}" in said.stdout.split("Example", 1)[1]
    assert "--json" in said.stdout
    assert said.stderr == ""


def test_without_a_command_it_lists_them(fsd: Fsd) -> None:
    said = fsd()
    assert said.code == 0
    assert {command.split()[0] for command in COMMANDS} <= set(said.stdout.split())


def test_version_names_the_kernel(fsd: Fsd) -> None:
    assert fsd("--version").stdout.rstrip().endswith(f"kernel {kernels.simd_path()}")


def test_methods_are_those_of_the_partition_room() -> None:
    assert set(get_args(Method)) == set(METHODS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("nonsense", "No such command 'nonsense'"),
        ("infer net in.npz", "Missing option"),
        ("infer net -o out", "Missing argument 'INPUT'"),
        ("infer net in.npz -o out --channel pigeon", "--channel"),
        ("infer net in.npz -o out --workers 0", "--workers"),
        ("infer net in.npz -o out --workers -3", "--workers"),
        ("infer net in.npz -o out --workers two", "--workers"),
        ("infer net in.npz -o out --partition alphabet", "--partition"),
        ("infer net in.npz -o out --micro-batches 0", "--micro-batches"),
        ("infer net in.npz -o out --branching 0", "--branching"),
        ("infer net in.npz -o out --threads 0", "--threads"),
        ("infer net in.npz -o out --fast", "--fast"),
        ("infer net in.npz -o in.npz", "INPUT and output are both in.npz"),
        ("infer net in.npz -o out --categories out", "output and categories are both out"),
        ("infer net in.npz -o nowhere/out", "nowhere is not a directory"),
        ("infer net in.npz -o .", ". is a directory"),
        ("dataset digits --neurons 1024 --samples 5 -o stdout", "stdout, which leads to /proc/self, cannot be written"),
        (
            "dataset digits --neurons 1024 --samples 5 -o round",
            "round cannot be written: its symbolic",
        ),
        ("partition net --workers 4 -o pipe", "pipe is a file, but the output is a directory"),
        ("partition net --workers 4 -o same", "NETWORK and output are both net and same, which is the same"),
        ("infer net in.npz -o out --report pipe", "pipe is a file, but the output is a directory"),
        ("infer net in.npz -o out --categories out2", "output and categories are both out and out2"),
        ("infer net in.npz -o out --categories nowhere/c", "nowhere is not a directory"),
        ("infer net in.npz -o out --report nowhere/r", "nowhere is not a directory"),
        ("partition net --workers 0 -o out", "--workers"),
        ("partition net --workers 4 --method alphabet -o out", "--method"),
        ("partition net --workers 4 -o net", "NETWORK and output are both net"),
        ("partition net --workers 4 -o out", "net is not a network"),
        ("partition net --workers 4 -o nowhere/out", "nowhere is not a directory"),
        ("network generate radixnet --neurons 1000 --layers 3 -o out", "1024, 4096, 16384, 65536"),
        ("network generate radixnet --neurons 1024 --layers 0 -o out", "--layers"),
        ("network generate radixnet --neurons 1024 --layers -2 -o out", "--layers"),
        ("network generate radixnet --neurons 1024 --layers 2000 -o out", "1 to 1920 layers"),
        ("network generate radixnet --neurons 1024 -o out", "needs --neurons and --layers"),
        ("network generate radixnet --neurons 1024 --layers 3 --seed 1 -o out", "radixnet networks are fixed"),
        ("network generate random --neurons 64 -o out", "needs --neurons and --layers, or --widths"),
        ("network generate random --widths 3,x -o out", "'3,x'"),
        ("network generate random --widths 3,0 -o out", "not 0"),
        ("network generate random --widths 3 -o out", "two widths"),
        ("network generate random --widths 3,4,5 --layers 1 -o out", "not 1"),
        ("network generate random --widths 3,4 --neurons 5 -o out", "contradict"),
        ("network generate random --neurons 9 --layers 2 --connections 0 -o out", "--connections"),
        ("network generate random --neurons 9 --layers 2 --seed -1 -o out", "--seed"),
        ("network generate cubic --neurons 9 --layers 2 -o out", "cubic"),
        ("network generate random --neurons 9 --layers 2 -o nowhere/out", "nowhere is not a directory"),
        ("network generate random --neurons 9 --layers 2 -o full", "full"),
        ("network import nowhere -o out", "nowhere"),
        ("network import full -o out", "no files named like"),
        ("network import -o out", "Missing argument 'SOURCE'"),
        ("network import full/other -o out", "full/other cannot be imported"),
        ("network import pipe -o out", "pipe is neither a file nor a folder"),
        ("network import full nowhere -o nowhere", "SOURCE and output are both nowhere"),
        (
            "network import full -o out --activation cosine",
            "cosine: an activation is one of identity, relu",
        ),
        (
            "network import full -o out --activation clipped_relu",
            "the activation clipped_relu takes its upper",
        ),
        (
            "network import full -o out --activation clipped_relu:x",
            "'clipped_relu:x' is not an activation with",
        ),
        ("network import full -o out --activation relu,", "--activation : an activation is one of"),
        ("network info nowhere", "nowhere is not a network"),
        ("dataset digits --neurons 1000 --samples 5 -o out.npz", "square"),
        ("dataset digits --neurons 1024 --samples 0 -o out", "--samples"),
        ("dataset digits --neurons 1024 --samples 5 -o nowhere/out", "nowhere is not a directory"),
        ("dataset digits --neurons 1024 --samples 5 -o full", "full is a directory"),
        ("demo --workers 0", "--workers"),
        ("demo --neurons 1000", "1024, 4096, 16384, 65536"),
        ("demo --layers 0", "--layers"),
        ("stack up --lanes 0", "--lanes"),
        ("stack up --ranks 0", "--ranks"),
        ("stack up -o nowhere/stack.json", "nowhere is not a directory"),
        ("stack up -o full/other", "full/other already exists"),
        ("stack up --endpoint-url nonsense", "--endpoint-url must be an http(s) URL"),
        ("stack up --endpoint-url http://", "--endpoint-url must be an http(s) URL"),
        ("stack show", "stack.json"),
        ("stack check", "stack.json"),
        ("stack check full/other", "full/other: is not JSON"),
        ("push net", "--stack"),
        ("push net --stack stack.json", "cannot read stack.json"),
        ("push net --stack full/other", "full/other: is not JSON"),
        ("push net --stack stack.json --workers 0", "--workers"),
        ("infer net in.npz -o out --stack full/other", "full/other: is not JSON"),
        ("infer net in.npz -o out --memory 0", "--memory"),
        ("runs list", "--stack"),
        ("runs list --stack stack.json", "cannot read stack.json"),
        ("runs show 12 --stack stack.json", "cannot read stack.json"),
        ("runs clean --stack stack.json", "say what to delete"),
        ("runs clean --older-than soon --stack stack.json", "'soon'"),
        ("stack down nowhere", "nowhere"),
        ("stack show full/other", "full/other"),
        ("cost", "give either a report.json or --paper"),
        ("cost full --paper", "give either a report.json or --paper"),
        ("cost nowhere", "nowhere"),
        ("cost full", "report.json: cannot be read"),
        ("cost full/other", "full/other: is not JSON"),
        ("cost full --memory 64", "--memory"),
        ("cost full --architecture z80", "--architecture"),
        ("cost full --publish-units frame", "--publish-units"),
        ("prices show --region mars-1", "the package has no prices of region 'mars-1'"),
        ("prices show --prices nowhere", "nowhere: cannot be read"),
        ("prices show --prices full/other", "full/other: is not JSON"),
        ("prices update -o out", "--region"),
        ("prices update --region us-east-1 -o nowhere/out", "nowhere is not a directory"),
    ],
)
def test_nonsense_is_one_line_and_code_2(
    fsd: Fsd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full/other").write_text("not ours")
    os.mkfifo("pipe")
    for name, target in (("stdout", "/proc/self/fd/1"), ("round", "round"), ("same", "net"), ("out2", "out")):
        Path(name).symlink_to(target)
    before = entries(tmp_path)
    plain = fsd(*arguments.split())
    assert plain.code == 2
    assert said in plain.error()
    assert plain.stdout == ""
    machine = fsd(*arguments.split(), "--json")
    assert machine.code == 2
    assert machine.error() == plain.error()
    assert said in machine.json()["error"]["message"]
    assert machine.json()["error"]["retryable"] is False
    assert entries(tmp_path) == before
    assert entries(Path("full")) == {"other"}


def test_an_interrupt_ends_with_130(fsd: Fsd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fsd_inference.network.digits", interrupted)
    said = fsd("dataset", "digits", "--neurons", 1024, "--samples", 5, "-o", tmp_path / "x.npz")
    assert (said.code, said.error()) == (130, "interrupted")
    assert entries(tmp_path) == set()


def test_a_full_disk_is_one_line_and_leaves_nothing(fsd: Fsd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(path: Path, _: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("fsd_inference.network.save_outputs", full)
    said = fsd("dataset", "digits", "--neurons", 1024, "--samples", 5, "-o", tmp_path / "x.npz")
    assert (said.code, said.error()) == (1, f"{tmp_path / 'x.npz'}: No space left on device")
    assert entries(tmp_path) == set()


def test_starting_imports_nothing_heavy() -> None:
    heavy = "numpy", "scipy", "boto3", "obstore", "mtkahypar", "sklearn", "rich.console"
    program = f"import sys, fsd_inference.cli.main; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_run_takes_its_arguments_from_the_caller(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["network", "--help"]) == 0
    assert "generate" in capsys.readouterr().out
