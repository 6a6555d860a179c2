"""A client whose services fail, fall silent or are gone during a run, and clients that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fsd_inference as fsd
from fsd_inference import deadlines
from fsd_inference.aws.clients import Clients
from fsd_inference.aws.local import temporary_stack
from fsd_inference.aws.provision import StackSettings, create_stack, delete_stack
from fsd_inference.aws.stack import load_stack, save_stack
from fsd_inference.chaos.processes import ranks_of, runs
from fsd_inference.chaos.proxy import Fault, FaultProxy, Request
from fsd_inference.config import Clocks
from fsd_inference.errors import RunError
from fsd_inference.stack_description import StackSpec
from tests.support.processes import wait_until
from tests.support.runs import same, session

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("aws_configuration"), pytest.mark.timeout(180)]

NETWORK = fsd.random_network([96] * 6, connections=8, seed=5)
X = np.random.default_rng(0).random((40, 96), np.float32)
WORKERS = 2
TRIES = 6
"""Attempts at one request."""


@pytest.fixture(scope="module")
def stack(emulator_url: str) -> Iterator[StackSpec]:
    clients = Clients(emulator_url, emulated=True)
    made = create_stack(clients, StackSettings(name="fsd-client", ranks=WORKERS, purge_settle_s=0.0))
    yield made
    delete_stack(clients, made)
    clients.close()


@pytest.fixture
def proxied(stack: StackSpec, proxy: FaultProxy, tmp_path: Path) -> Path:
    path = tmp_path / "stack.json"
    save_stack(replace(stack, endpoint_url=proxy.url), path)
    return path


def serial() -> fsd.Inference:
    with fsd.Session(NETWORK) as alone:
        return alone.infer(X)


# --- silence ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", ["queue", "object"])
def test_services_that_fall_silent_end_the_run_by_its_deadline(
    channel: str,
    proxied: Path,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(deadlines, "CLEANUP_S", 1.0)  # of the client; ranks are other processes
    over, layers = threading.Event(), []

    def silent(request: Request) -> Fault | None:
        if request.kind.endswith((".publish", ".put")):
            layers.append(request)
        if len(layers) > 8:  # the ranks are exchanging
            over.wait(120)
            return Fault(reset=True)
        return None

    clocks = Clocks(start_s=30, stall_s=30, run_s=6)
    with session(
        NETWORK, channel, proxied, workers=WORKERS, partition="block", attempts=1, delay_s=0.2, clocks=clocks
    ) as distributed:
        distributed.prepare()
        proxy.hook, began = silent, time.monotonic()
        with pytest.raises(RunError) as caught:
            distributed.infer(X)
        seconds = time.monotonic() - began
        over.set()
        proxy.hook = None
    assert caught.value.operation
    assert caught.value.retryable
    assert seconds < 6 + 15 + 20  # the deadline, the ranks' time to end, and the cleaning up on a busy machine
    assert "objects of the run were not deleted, and expire" in caplog.text
    left = "lane 0 was not released, and its lease expires" if channel == "queue" else "frames of the run were not"
    assert left in caplog.text
    wait_until(lambda: ranks_of(os.getpid()) == {}, "all ranks have ended")


# --- failures of the client's own requests ----------------------------------------------------------------------------


def a_put_of(text: str) -> Callable[[Request], bool]:
    return lambda request: request.kind == "s3.put" and text in request.path


def a_get_of(text: str) -> Callable[[Request], bool]:
    return lambda request: request.kind == "s3.get" and text in request.path


REQUESTS: dict[str, Callable[[Request], bool]] = {
    "upload": a_put_of("/input"),
    "lease": a_put_of("/lanes/0000.json"),
    "report": a_get_of("/reports/00000"),
    "collect": a_get_of("/results/00001"),
}


def break_matching(proxy: FaultProxy, matches: Callable[[Request], bool], times: int) -> None:
    """Answer the first `times` requests that match with an error of the service."""
    left = iter(range(times))
    proxy.hook = lambda request: (
        Fault(status=500, code="InternalError") if matches(request) and next(left, None) is not None else None
    )


@pytest.mark.parametrize("operation", REQUESTS)
def test_another_attempt_follows_a_failure_of_the_clients_own_request(
    operation: str, proxied: Path, proxy: FaultProxy
) -> None:
    with session(NETWORK, "queue", proxied, workers=WORKERS, partition="block", attempts=2) as distributed:
        distributed.prepare()
        break_matching(proxy, REQUESTS[operation], TRIES)
        answer = distributed.infer(X)
        assert answer.report.attempts == 2
        assert same(answer.outputs, serial().outputs)


@pytest.mark.parametrize("operation", REQUESTS)
def test_without_another_attempt_the_operation_is_named(operation: str, proxied: Path, proxy: FaultProxy) -> None:
    with session(NETWORK, "queue", proxied, workers=WORKERS, partition="block", attempts=1) as distributed:
        distributed.prepare()
        break_matching(proxy, REQUESTS[operation], TRIES)
        with pytest.raises(RunError, match="the service answered 500 InternalError") as caught:
            distributed.infer(X)
        assert caught.value.operation == operation
        assert caught.value.retryable
        proxy.hook = None
        assert same(distributed.infer(X).outputs, serial().outputs)  # nothing stands in the way of the next run


def test_services_that_are_gone_fail_the_run(tmp_path: Path) -> None:
    with temporary_stack(StackSettings("gone", ranks=WORKERS, purge_settle_s=0.0)) as stack:
        save_stack(stack, tmp_path / "stack.json")
        assert stack.emulator is not None
        emulator = stack.emulator.pid

        def end_services() -> None:
            wait_until(lambda: len(ranks_of(os.getpid())) == WORKERS, "all ranks run", 60)
            os.killpg(emulator, signal.SIGKILL)

        ending = threading.Thread(target=end_services)
        with session(
            NETWORK, "queue", tmp_path / "stack.json", workers=WORKERS, partition="block", attempts=2, delay_s=0.5
        ) as distributed:
            distributed.prepare()
            ending.start()
            with pytest.raises(RunError) as caught:
                distributed.infer(X)
        ending.join()
    assert caught.value.operation
    assert caught.value.retryable


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("channel", ["queue", "object"])
def test_a_store_that_answers_ranges_with_whole_objects_serves_a_run(
    channel: str, every: int, proxied: Path, proxy: FaultProxy
) -> None:
    """Always, or now and then."""
    whole: list[Request] = []

    def hook(request: Request) -> Fault | None:
        if "range" not in request.headers or request.number % every:
            return None
        whole.append(request)
        return Fault(whole=True)

    with session(NETWORK, channel, proxied, workers=WORKERS, partition="block", attempts=1) as distributed:
        proxy.hook = hook
        assert same(distributed.infer(X).outputs, serial().outputs)
    assert whole


# --- clients that are killed ------------------------------------------------------------------------------------------

KILLED = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from fsd_inference.aws import keeping, lanes
    from tests.e2e.test_client_requests import NETWORK, X
    from tests.support.runs import session

    lanes.LEASE_S, keeping.RENEW_S = 4.0, 1.0
    with session(NETWORK, "queue", Path(sys.argv[1]), workers=2, partition="block", delay_s=20.0) as distributed:
        distributed.infer(X)
    """
)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGHUP], ids=lambda number: signal.Signals(number).name)
def test_the_only_lane_of_a_killed_client_is_free_after_a_lease(
    how: signal.Signals, stack: StackSpec, tmp_path: Path
) -> None:
    save_stack(stack, tmp_path / "stack.json")
    assert len(load_stack(tmp_path / "stack.json").lanes) == 1
    killed = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path / "stack.json"])
    try:
        wait_until(lambda: len(ranks_of(killed.pid)) == WORKERS, "all ranks run", 60)
    finally:
        ranks = ranks_of(killed.pid)
        killed.send_signal(how)
        killed.wait(30)
    with session(
        NETWORK, "queue", tmp_path / "stack.json", workers=WORKERS, partition="block", attempts=1
    ) as distributed:
        assert same(distributed.infer(X).outputs, serial().outputs)
    wait_until(lambda: not any(map(runs, ranks.values())), "the killed client's ranks have ended")
