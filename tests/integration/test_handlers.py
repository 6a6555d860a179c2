"""The Lambda handlers called in this process: what they leave behind, and what they cache for the next run."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.aws import coordination
from fsd_inference.aws.events import RankEvent
from fsd_inference.aws.handlers import coordinator, environment, worker
from fsd_inference.aws.handlers.code import code_digest
from fsd_inference.aws.handlers.environment import STACK_KEY
from fsd_inference.aws.local import bring_up
from fsd_inference.aws.provision import StackSettings
from fsd_inference.aws.stack import save_stack
from fsd_inference.aws.status import RunStatus
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import FsdError, RunError, StackError, StackUpdatedError
from fsd_inference.stack_description import FunctionsSpec, ManagedInstances, WorkerFunction
from tests.support.aws_configuration import no_aws_configuration
from tests.support.calls import Caller, Pushed, caller
from tests.support.runs import same, serial

FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:none-"
NETWORK = fsd.random_network([64, 48, 48, 32], connections=8, seed=3)

pytestmark = pytest.mark.emulator


@dataclass
class Context:
    """Lambda's, with as much time as it says."""

    left_s: float = 60.0
    aws_request_id: str = "request"

    def get_remaining_time_in_millis(self) -> int:
        return int(self.left_s * 1000)


@pytest.fixture(scope="module")
def keys() -> Iterator[None]:
    """What Lambda gives a function, which has no other configuration."""
    with no_aws_configuration() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_REGION", "us-east-1")
        yield


@pytest.fixture(scope="module")
def calls(keys: None, emulator_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    """A stack whose functions are not there: the handlers are called here."""
    made = bring_up(StackSettings("handlers", ranks=2, purge_settle_s=0.0), endpoint_url=emulator_url)
    queue = made.lanes[0].queue_urls[0].replace("lane0-rank0", "failures")
    workers = (
        WorkerFunction(1769, f"{FUNCTION}worker"),
        WorkerFunction(32_768, f"{FUNCTION}managed:$LATEST.PUBLISHED", ManagedInstances(3, 8)),
    )
    functions = FunctionsSpec(f"{FUNCTION}coordinator", workers, queue, 60.0)
    with caller(replace(made, functions=functions)) as ready:
        ready.clients.sqs.create_queue(QueueName=f"{made.name}-failures")
        path = tmp_path_factory.mktemp("stack") / "stack.json"
        save_stack(ready.stack, path)
        ready.plans.put(STACK_KEY, path.read_bytes())
        yield ready


@pytest.fixture(autouse=True)
def function(calls: Caller, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """What Lambda sets for a function, and an environment that has just begun."""
    variables = {"FSD_STACK_BUCKET": calls.stack.network_bucket, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769"}
    for name, value in {**variables, "AWS_ENDPOINT_URL": str(calls.stack.endpoint_url)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    environment.environment.cache_clear()
    yield
    environment.environment().clients.close()
    environment.environment.cache_clear()


@pytest.fixture(scope="module")
def inputs() -> sparse.csr_array:
    return sparse.csr_array(sparse.random_array((20, 64), density=0.4, rng=5, dtype="f4"))


def rank_event(calls: Caller, pushed: Pushed, inputs: sparse.csr_array) -> RankEvent:
    spec = calls.event(pushed, inputs, "serial", 1769).spec
    spec = replace(spec, deadline=time.time() + 60)
    stack = environment.environment().open().digest
    return RankEvent(spec, 0, None, "serial", 1769, None, code_digest(), stack)


def own_threads() -> set[threading.Thread]:
    """Threads but those that wait in a warm store's pool."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith("s3-range")}


def test_a_rank_leaves_an_answer_and_nothing_else(
    calls: Caller, inputs: sparse.csr_array, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pushed = calls.push(NETWORK, 1)
    before = own_threads()
    event = rank_event(calls, pushed, inputs)
    assert worker.handle(event.to_json(), Context()) == {"rank": 0, "result": "done"}
    assert own_threads() == before  # a thread that is frozen with the function would wake in another run
    assert [file.name for file in tmp_path.iterdir()] == ["fsd-plans"]
    data = calls.store.get(event.spec.result_key(0))
    assert data is not None
    status = replace(calls_status(event), results=(data,))
    run = calls.event(pushed, inputs, "serial", 1769)
    assert same(calls.outputs(pushed, replace(run, spec=event.spec), status), serial(NETWORK, inputs))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("message") for line in lines] == ["rank begins", None, "rank is done"]
    assert all(line["run"] == event.spec.run and line["rank"] == 0 for line in lines)


@pytest.mark.parametrize(("memory_mb", "threads"), [(1769, 1), (32_768, 8)])
def test_a_rank_has_a_thread_for_each_vcpu(
    memory_mb: int, threads: int, calls: Caller, inputs: sparse.csr_array, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Managed Instances they do not follow from the memory, of which a vCPU may have 2 to 8 GiB."""
    found = []
    monkeypatch.setattr(worker, "run_rank", lambda *, spec, **_: found.append(spec.settings.threads))
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", str(memory_mb))
    event = replace(rank_event(calls, calls.push(NETWORK, 1), inputs), memory_mb=memory_mb)
    worker.handle(event.to_json(), Context())
    assert found == [threads]


def test_early_frames_of_a_rank_take_a_share_of_the_functions_memory(
    calls: Caller, inputs: sparse.csr_array, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    monkeypatch.setattr(worker, "run_rank", lambda *, load, **_: load(Future()))
    monkeypatch.setattr(worker, "LoadedRank", lambda *arguments: found.append(arguments[3:]))
    worker.handle(rank_event(calls, calls.push(NETWORK, 1), inputs).to_json(), Context())
    ((folder, memory_bytes),) = found
    assert "spill" in folder
    assert memory_bytes == 1769 * 2**20


def calls_status(event: RankEvent) -> RunStatus:
    spec = event.spec
    return RunStatus(spec.run, 0, spec.plan, "serial", 1, spec.samples, "done", 0.0)


def test_what_ranks_need_is_opened_before_the_first_event(calls: Caller) -> None:
    digest = hashlib.sha256(calls.plans.get(STACK_KEY) or b"").hexdigest()[:32]
    function = environment.environment()
    function.warm_up()
    made = function.clients
    assert set(made._clients) == {"lambda"}
    assert made._topics is not None
    assert made._queues is not None
    before = function.meter.snapshot()
    assert function.open(digest).stack.lanes == calls.stack.lanes
    assert function.meter.snapshot() == before


def test_a_function_that_cannot_open_its_stack_says_so_to_the_first_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FSD_STACK_BUCKET")
    function = environment.environment()
    function.warm_up()
    with pytest.raises(StackError, match="FSD_STACK_BUCKET is not set in the function"):
        function.open()


def test_the_second_run_finds_its_shard_and_counts_its_own_requests(calls: Caller, inputs: sparse.csr_array) -> None:
    pushed = calls.push(NETWORK, 1)
    requests = []
    for _ in range(2):
        event = rank_event(calls, pushed, inputs)
        worker.handle(event.to_json(), Context())
        requests.append(json.loads(calls.store.get(event.spec.report_key(0)) or b"")["usage"]["requests"])
    assert requests[0] == {"s3.get": 3, "s3.put": 3}  # manifest, shard, input; claim, result, report
    assert requests[1] == {"s3.get": 1, "s3.put": 3}


def test_an_invocation_beside_another_in_one_process_is_refused(calls: Caller, inputs: sparse.csr_array) -> None:
    pushed = calls.push(NETWORK, 1)
    first, second, third = (rank_event(calls, pushed, inputs) for _ in range(3))
    refused: list[BaseException] = []

    class Meanwhile(Context):
        def get_remaining_time_in_millis(self) -> int:
            other = threading.Thread(target=self.invoke)
            other.start()
            other.join()
            return super().get_remaining_time_in_millis()

        def invoke(self) -> None:
            with pytest.raises(StackError, match="this process carries out another invocation") as caught:
                worker.handle(second.to_json(), Context())
            refused.append(caught.value)

    assert worker.handle(first.to_json(), Meanwhile())["result"] == "done"
    assert len(refused) == 1
    assert calls.store.stat(second.spec.claim_key(0)) is None
    assert worker.handle(third.to_json(), Context())["result"] == "done"
    assert report(calls, first)["usage"]["requests"] == {"s3.get": 3, "s3.put": 3}
    assert report(calls, third)["usage"]["requests"] == {"s3.get": 1, "s3.put": 3}


PROCESS = """
import json, sys
from fsd_inference.aws.handlers import worker
from tests.integration.test_handlers import Context
for event in sys.stdin:
    print(json.dumps(worker.handle(json.loads(event), Context())), flush=True)
"""


def in_processes(shares: list[list[RankEvent]], folder: Path, *, together: bool) -> None:
    """Carry out each share of the events in a process of its own, all with one directory for temporary files."""
    variables = os.environ | {"TMPDIR": str(folder)}
    running = []
    for share in shares:
        process = subprocess.Popen(
            [sys.executable, "-c", PROCESS], env=variables, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        running.append((process, "".join(f"{json.dumps(event.to_json())}\n" for event in share)))
        if not together:
            process.communicate(running.pop()[1])
            assert process.returncode == 0
    for process, lines in running:
        assert process.stdin is not None
        process.stdin.write(lines)
        process.stdin.close()
    for process, _ in running:
        assert process.stdout is not None
        with process.stdout:
            process.stdout.read()
        assert process.wait() == 0


def test_processes_that_share_a_disk_answer_and_count_as_one_after_the_other(
    calls: Caller, inputs: sparse.csr_array, tmp_path: Path
) -> None:
    networks = [NETWORK, fsd.random_network([64, 40, 24], connections=8, seed=4)]
    pushed = [calls.push(network, 1) for network in networks]
    used: dict[bool, list[dict[str, int]]] = {}
    for together in (False, True):  # the first finds an empty disk, and leaves both shards for the second
        shares = [[rank_event(calls, pushed[i], inputs) for i in order] for order in ((0, 1, 0), (1, 0, 1))]
        in_processes(shares, tmp_path, together=together)
        used[together] = [report(calls, event)["usage"]["requests"] for share in shares for event in share]
        for event, i in zip((event for share in shares for event in share), (0, 1, 0, 1, 0, 1), strict=True):
            data = calls.store.get(event.spec.result_key(0))
            assert data is not None
            run = replace(calls.event(pushed[i], inputs, "serial", 1769), spec=event.spec)
            assert same(
                calls.outputs(pushed[i], run, replace(calls_status(event), results=(data,))),
                serial(networks[i], inputs),
            )
    assert used[True] == 2 * used[False][3:]  # the second process alone found all on the disk, as both did together
    assert used[False][0]["s3.get"] > used[True][0]["s3.get"]
    assert [file.name for file in tmp_path.iterdir()] == ["fsd-plans"]


def report(calls: Caller, event: RankEvent) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(calls.store.get(event.spec.report_key(0)) or b"")
    return found


def test_the_first_run_of_an_environment_reports_its_init_phase(
    calls: Caller, inputs: sparse.csr_array, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = calls.push(NETWORK, 1)
    monkeypatch.setattr(environment, "process_age_s", lambda: 0.75)
    environment.environment().end_init()
    found = []
    for _ in range(2):
        event = rank_event(calls, pushed, inputs)
        worker.handle(event.to_json(), Context())
        found.append(json.loads(calls.store.get(event.spec.report_key(0)) or b"")["init_s"])
    environment.environment().end_init()
    for _ in range(2):
        run = calls.event(pushed, inputs, "serial", 1769)
        coordinator.handle(run.to_json(), Context())
        found.append(calls.metrics(run)["coordinator"]["init_s"])
    assert found == [0.75, 0.0, 0.75, 0.0]


@pytest.mark.parametrize(("checkpoint_every", "kind"), [(0, "DeadlineError"), (2, "HandedOnError")])
def test_a_rank_gives_up_before_Lambda_ends_it(
    checkpoint_every: int, kind: str, calls: Caller, inputs: sparse.csr_array
) -> None:
    event = rank_event(calls, calls.push(NETWORK, 1), inputs)
    settings = replace(event.spec.settings, checkpoint_every=checkpoint_every)
    event = replace(event, spec=replace(event.spec, settings=settings))
    assert worker.handle(event.to_json(), Context(left_s=5.0)) == {"rank": 0, "result": "failed"}
    error = json.loads(calls.store.get(event.spec.report_key(0)) or b"")["error"]
    assert error["type"] == kind


@pytest.mark.parametrize(("left_s", "checkpoint_every", "hands_on"), [(40, 2, True), (40, 0, False), (900, 2, False)])
def test_ranks_hand_on_before_Lambda_ends_their_coordinator(
    left_s: float,
    checkpoint_every: int,
    hands_on: bool,
    calls: Caller,
    inputs: sparse.csr_array,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    event = calls.event(calls.push(NETWORK, 1), inputs, "serial", 1769, checkpoint_every=checkpoint_every)
    invoked: list[RunSpec] = []

    def invoke(_clients: Any, _function: str, event: RankEvent, _meter: Any) -> None:
        invoked.append(event.spec)
        raise RunError("it is not there")

    monkeypatch.setattr(coordination, "invoke_rank", invoke)
    began = time.time()
    coordinator.handle(event.to_json(), Context(left_s))
    assert invoked[0].hands_on == hands_on
    assert invoked[0].deadline <= began + left_s


def test_an_attempt_from_beyond_the_last_layer_is_refused(calls: Caller, inputs: sparse.csr_array) -> None:
    event = calls.event(calls.push(NETWORK, 1), inputs, "serial", 1769)
    layers = len(NETWORK)
    answer = coordinator.handle(event.to_json() | {"resume_at": layers}, Context())
    assert answer["error"]["message"] == f"the plan has {layers} layers: no attempt can start at {layers}"


@pytest.mark.parametrize("change", [{"code": "other"}, {"stack": "other"}])
def test_a_rank_of_another_release_or_stack_does_not_begin(
    change: dict[str, str], calls: Caller, inputs: sparse.csr_array
) -> None:
    event = rank_event(calls, calls.push(NETWORK, 1), inputs)
    with pytest.raises(StackUpdatedError, match="try again"):
        worker.handle(event.to_json() | change, Context())
    assert calls.store.stat(event.spec.claim_key(0)) is None


def test_a_wrong_event_is_an_error_that_Lambda_passes_on(calls: Caller) -> None:
    with pytest.raises(FsdError, match="'version' is missing"):
        worker.handle({"rank": 0}, Context())


def test_functions_that_are_missing_are_told_in_the_status(calls: Caller, inputs: sparse.csr_array) -> None:
    event = calls.event(calls.push(NETWORK, 2), inputs, "queue", 1769)
    before = own_threads()
    answer = coordinator.handle(event.to_json(), Context())
    assert own_threads() == before
    assert answer["state"] == "failed"
    assert answer["error"]["message"].startswith(f"cannot start rank 0 with {FUNCTION}worker: the service answered 404")
    assert calls.status(event.spec.run) is not None
    lease = json.loads(calls.store.get("lanes/0000.json") or b"")
    assert lease["state"] != "held"  # given back at once


def test_an_event_that_names_no_run_is_refused(calls: Caller) -> None:
    answer = coordinator.handle({"version": 7, "run": "../x"}, Context())
    assert answer["state"] == "failed"
    assert "has version 7" in answer["error"]["message"]
