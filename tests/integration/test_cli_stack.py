"""`fsd stack` with a real emulator process that outlives the command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fsd_inference import random_network
from fsd_inference.aws.clients import Clients
from fsd_inference.aws.emulator import stop_emulator
from fsd_inference.aws.lanes import open_lanes
from fsd_inference.aws.local import temporary_stack
from fsd_inference.aws.provision import StackSettings
from fsd_inference.aws.stack import load_stack, save_stack
from fsd_inference.usage import UsageMeter
from tests.support.cli import Fsd, entries, fsd_in
from tests.support.processes import wait_until

pytestmark = pytest.mark.emulator


@pytest.fixture
def fsd(capsys: pytest.CaptureFixture[str]) -> Fsd:
    return fsd_in(capsys)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that has ended stays known until its parent asks, and its parent is gone.
    return " Z" not in Path(f"/proc/{pid}/stat").read_text() if Path("/proc").exists() else True


def test_up_show_down(fsd: Fsd, tmp_path: Path) -> None:
    file = tmp_path / "stack.json"
    program = "from fsd_inference.cli.main import main; main()"
    flags = ["stack", "up", "--lanes", "2", "--ranks", "3", "-o", str(file), "--json"]
    # A process of its own, since the emulator must outlive it.
    subprocess.run([sys.executable, "-c", program, *flags], check=True, capture_output=True, timeout=120)
    stack = load_stack(file)
    assert stack.emulator is not None
    try:
        clients = Clients.of_stack(stack)
        assert len(clients.sqs.list_queues()["QueueUrls"]) == 6
        clients.close()
        shown = fsd("stack", "show", file, "--json").json()
        assert (len(shown["lanes"]), shown["ranks"], shown["problem"]) == (2, 3, None)
        assert shown["emulator"] == {"endpoint_url": stack.endpoint_url, "pid": stack.emulator.pid}
        assert stack.emulator.token not in fsd("stack", "show", file).stdout
        again = fsd("stack", "up", "-o", file)
        assert again.code == 2
        assert f"fsd stack down {file}" in again.error()
        down = fsd("stack", "down", file, "--json")
        assert (down.code, down.json()["deleted"]) == (0, True)
        assert not _is_running(stack.emulator.pid)
        assert entries(tmp_path) == set()
    finally:
        stop_emulator(stack.emulator)


@pytest.mark.usefixtures("aws_configuration")
def test_on_a_given_endpoint(fsd: Fsd, tmp_path: Path, emulator_url: str) -> None:
    file = tmp_path / "stack.json"
    assert fsd("stack", "up", "--endpoint-url", emulator_url, "-o", file).code == 0
    stack = load_stack(file)
    assert stack.emulator is None
    clients = Clients.of_stack(stack)
    assert {stack.network_bucket, *stack.run_buckets} <= {b["Name"] for b in clients.s3.list_buckets()["Buckets"]}
    assert fsd("stack", "down", file).code == 0
    assert stack.network_bucket not in {bucket["Name"] for bucket in clients.s3.list_buckets()["Buckets"]}
    clients.close()
    assert entries(tmp_path) == set()


def test_lanes_of_expired_leases_are_freed_by_any_cleaning(fsd: Fsd, tmp_path: Path) -> None:
    file, dead, alive = tmp_path / "stack.json", "d" * 32, "a" * 32
    with temporary_stack(StackSettings("expired", lanes=2, ranks=2, purge_settle_s=0.0)) as stack:
        save_stack(stack, file)
        clients, meter = Clients.of_stack(stack), UsageMeter()
        store = clients.open_bucket(stack.run_buckets[0], meter=meter)
        lanes = open_lanes(store, clients, stack, meter=meter)
        lanes.acquire(alive, 0, 900.0, 0.0, [1])
        assert lanes._hold(0, dead, 0, 0.0, None) is not None
        wait_until(lambda: any(lane.is_over for lane in lanes.look()), "the lease has expired")
        store.put(f"runs/{dead}/input", b"")
        cleaned = fsd("runs", "clean", "--all", "--stack", file, "--json").json()
        assert (cleaned["runs"], cleaned["freed_lanes"]) == ([dead], [0])
        assert {lane["run"] for lane in cleaned["lanes"] if lane["state"] == "held"} == {alive}
        store.close()
        clients.close()


def test_a_client_that_was_killed_holds_its_lane_until_its_run_is_cleaned(
    fsd: Fsd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsd_inference.session.stack_executor.LANE_WAIT_S", 1.0)
    file, dead = tmp_path / "stack.json", "d" * 32
    random_network([8, 6, 4], connections=3, seed=1).save(tmp_path / "net")
    np.save(tmp_path / "x.npy", np.ones((2, 8), np.float32))
    infer = ("infer", tmp_path / "net", tmp_path / "x.npy", "-o", tmp_path / "out.npz", "--workers", 2)
    with temporary_stack(StackSettings("killed", ranks=2, purge_settle_s=0.0)) as stack:
        save_stack(stack, file)
        clients, meter = Clients.of_stack(stack), UsageMeter()
        store = clients.open_bucket(stack.run_buckets[0], meter=meter)
        open_lanes(store, clients, stack, meter=meter).acquire(dead, 0, 900.0, 0.0)
        said = fsd(*infer, "--channel", "queue", "--stack", file)
        assert said.code == 1
        *waiting, error = said.stderr.splitlines()
        assert len(waiting) == 2  # once an attempt
        assert all(line.startswith(f"waiting: no lane is free: lane 0 is held by run {dead}") for line in waiting)
        assert error.startswith(f"error: leasing a lane: no lane is free after 1 s: lane 0 is held by run {dead}")
        assert "fsd runs clean RUN" in error
        cleaned = fsd("runs", "clean", dead, "--stack", file, "--json").json()
        assert (cleaned["runs"], cleaned["freed_lanes"]) == ([], [0])
        monkeypatch.undo()
        assert fsd(*infer, "--channel", "queue", "--stack", file).code == 0
        assert fsd("runs", "clean", dead, "--stack", file).code == 2  # it holds nothing any more
        store.close()
        clients.close()
