"""The Terraform deployment as seen by a user who has only the module's policy for callers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.aws.backends import open_buckets
from fsd_inference.aws.clients import Clients
from fsd_inference.aws.lanes import LaneTable, open_lanes
from fsd_inference.store.base import Store
from fsd_inference.usage import UsageMeter
from tests.support.cli import Fsd, fsd_in
from tests.support.deployed import LANES, RANKS, Deployed, deployed_stack
from tests.support.processes import wait_until
from tests.support.runs import same, serial
from tests.support.shared import graph_challenge_inputs

P = RANKS
FLAGS = f"--workers {P} --branching 2 --stack stack.json"

pytestmark = [pytest.mark.emulator, pytest.mark.functions, pytest.mark.terraform, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    with deployed_stack(tmp_path_factory.mktemp("deployed")) as made:
        yield made


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, deployed: Deployed) -> Path:
    """A folder with the stack's stack.json, a network `net` and real inputs `x.npz`."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "stack.json").write_text(deployed.outputs["stack_json"])
    fsd.graph_challenge(1024, 120).save(folder / "net")
    sparse.save_npz(folder / "x.npz", graph_challenge_inputs(1024, 500))
    return folder


@pytest.fixture(scope="module")
def pushed(place: Path) -> Path:
    """The network, pushed for 1 and for P workers."""
    for workers in (1, P):
        fsd.push(place / "net", stack=place / "stack.json", workers=workers)
    return place / "net"


@pytest.fixture(scope="module")
def expected(place: Path) -> sparse.csr_array:
    return serial(fsd.Network.load(place / "net"), sparse.csr_array(sparse.load_npz(place / "x.npz")))


@pytest.fixture
def commands(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Fsd:
    monkeypatch.chdir(place)
    return fsd_in(capsys)


@contextmanager
def leases(deployed: Deployed) -> Iterator[tuple[LaneTable, Store]]:
    stack = deployed.stack
    clients = Clients.of_stack(stack)
    runs, networks = open_buckets(clients, stack, UsageMeter())
    try:
        yield open_lanes(runs[0], clients, stack, meter=UsageMeter()), runs[0]
    finally:
        for store in (*runs, networks):
            store.close()
        clients.close()


def client(place: Path, output: str) -> subprocess.Popen[bytes]:
    """Start `fsd infer` as a process of its own."""
    program = "from fsd_inference.cli.main import main; main()"
    arguments = f"infer net x.npz -o {output} --channel queue {FLAGS} --json".split()
    return subprocess.Popen([sys.executable, "-c", program, *arguments], cwd=place, stdout=subprocess.DEVNULL)


def check(commands: Fsd) -> dict[str, str]:
    said = commands("stack", "check", "stack.json", "--json")
    return {finding["what"]: finding["text"] for finding in said.json()["findings"] if finding["state"] != "ok"}


def test_the_stack_is_ready(commands: Fsd) -> None:
    assert check(commands) == {}


def test_a_network_that_is_not_pushed_is_refused_and_then_pushed_once(commands: Fsd) -> None:
    refused = commands("infer", "net", "x.npz", "-o", "no.npz", "--channel", "object", *FLAGS.split())
    push = f"fsd push net --stack stack.json --workers {P}"
    assert refused.code == 2
    assert refused.error() == f"the network is not on the stack for {P} workers; push it first: {push}"
    sent = [commands(*push.split()[1:], "--json").json()["sent_bytes"] for _ in range(2)]
    assert sent[0] > 1e6
    assert sent[1] == 0


def test_real_inputs_give_the_same_bits(commands: Fsd, pushed: Path, expected: sparse.csr_array) -> None:
    lines = []
    for channel, flags in (("serial", "--stack stack.json"), ("queue", FLAGS), ("object", FLAGS)):
        walls = []
        for _ in range(2):
            said = commands(*f"infer net x.npz -o out.npz --channel {channel} {flags} --json".split())
            assert said.code == 0, said.stderr
            assert same(sparse.csr_array(sparse.load_npz("out.npz")), expected)
            walls.append(said.json()["wall_s"])
            assert len({rank["process"] for rank in said.json()["ranks"]}) == (1 if channel == "serial" else P)
        lines.append(f"{channel}: first run {walls[0]:.1f} s, second (warm) {walls[1]:.1f} s")
    print(*lines, sep="\n")  # commands take what is printed between them


def test_two_runs_at_once_take_two_lanes_and_a_third_waits_its_turn(
    place: Path, deployed: Deployed, pushed: Path, expected: sparse.csr_array
) -> None:
    clients = [client(place, f"{number}.npz") for number in range(3)]
    holders = set()
    with leases(deployed) as (lanes, _):
        while any(process.poll() is None for process in clients):
            holders.add(frozenset((state.lane, state.run) for state in lanes.look() if state.state == "held"))
            time.sleep(0.5)
        assert [process.returncode for process in clients] == [0, 0, 0]
    runs = {frozenset(run for _, run in held if run != "another") for held in holders}  # that one was changing hands
    assert max(map(len, runs)) == LANES  # a lane has one holder
    assert len(frozenset.union(*runs)) == 3
    for number in range(3):
        assert same(sparse.csr_array(sparse.load_npz(place / f"{number}.npz")), expected)


def test_a_client_that_is_killed_leaves_no_lease(place: Path, deployed: Deployed, pushed: Path) -> None:
    with leases(deployed) as (lanes, _):
        process = client(place, "killed.npz")
        wait_until(lambda: any(state.state == "held" for state in lanes.look()), "the run holds a lane", 60)
        process.kill()
        process.wait()
        (held,) = (state for state in lanes.look() if state.state == "held")
        wait_until(lambda: all(state.state != "held" for state in lanes.look()), "the lane is given back", 60)
    assert held.run
    assert not (place / "killed.npz").exists()
