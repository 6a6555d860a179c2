"""The Lambda handlers under AWS's own runtime client, as functions of an emulated stack.

Each concurrent invocation is a separate process; ranks start each other through the emulator's Invoke API.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.aws.events import RankEvent, RunEvent
from fsd_inference.aws.failures import FailureQueue
from fsd_inference.aws.handlers.environment import STACK_KEY
from fsd_inference.aws.notes import told_key
from fsd_inference.aws.orphans import attempt_of, end_orphans
from fsd_inference.aws.runs import unfinished
from fsd_inference.chaos.processes import processes_of
from fsd_inference.config import Clocks
from fsd_inference.engine.ending import read_reports
from fsd_inference.engine.gather import decode
from fsd_inference.errors import StackUpdatedError, StallError, StartError, WorkerDiedError
from fsd_inference.limits import DEEPEST_TREE
from fsd_inference.usage import UsageMeter
from tests.support.calls import PATIENT, Caller, Pushed, caller
from tests.support.functions import deployed_code, functions_stack
from tests.support.processes import wait_until
from tests.support.runs import same, serial

MEMORY_MB = 512
P = 6

pytestmark = [pytest.mark.emulator, pytest.mark.functions]


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    with functions_stack(tmp_path_factory.mktemp("functions"), ranks=P) as stack, caller(stack) as made:
        yield made


@pytest.fixture(scope="module")
def network() -> fsd.Network:
    return fsd.graph_challenge(1024, 120)


@pytest.fixture(scope="module")
def inputs() -> sparse.csr_array:
    return fsd.digits(neurons=1024, samples=400)


@pytest.fixture(scope="module")
def expected(network: fsd.Network, inputs: sparse.csr_array) -> sparse.csr_array:
    return serial(network, inputs)


@pytest.fixture(scope="module")
def pushed(calls: Caller, network: fsd.Network) -> Pushed:
    return calls.push(network, P)


def worker_processes(calls: Caller) -> set[int]:
    return processes_of(f"{calls.stack.name}-worker-{MEMORY_MB}")


def carry_out(calls: Caller, pushed: Pushed, event: RunEvent) -> tuple[sparse.csr_array, float]:
    started = time.time()
    status = calls.carry_out(event)
    assert status.state == "done", status.error
    return calls.outputs(pushed, event, status), time.time() - started


@pytest.mark.parametrize("channel", ["queue", "object"])
def test_ranks_start_each_other_and_answer_bit_for_bit(
    channel: str, calls: Caller, pushed: Pushed, inputs: sparse.csr_array, expected: sparse.csr_array
) -> None:
    seconds = []
    for _ in range(2):
        event = calls.event(pushed, inputs, channel, MEMORY_MB, branching=2)
        outputs, took = carry_out(calls, pushed, event)
        seconds.append(took)
        assert same(outputs, expected)
        ranks = calls.metrics(event)["ranks"]
        assert len({rank["process"] for rank in ranks}) == P
        assert [rank["starter"] for rank in ranks] == [None, 0, 0, 1, 1, 2]
    print(f"{channel}, P={P}, b=2: first run {seconds[0]:.1f} s, second (warm) {seconds[1]:.1f} s")


def test_one_function_alone(
    calls: Caller, network: fsd.Network, inputs: sparse.csr_array, expected: sparse.csr_array
) -> None:
    whole = calls.push(network, 1)
    seconds, loads = [], []
    for _ in range(2):
        event = calls.event(whole, inputs, "serial", MEMORY_MB)
        outputs, took = carry_out(calls, whole, event)
        seconds.append(took)
        loads.append(calls.metrics(event)["ranks"][0]["load_requests"])
        assert same(outputs, expected)
    assert loads[1] < loads[0]  # the shard is warm, so that only the inputs are read
    print(f"serial: first run {seconds[0]:.1f} s, second (warm) {seconds[1]:.1f} s")


@pytest.mark.parametrize("output", ["any", "argmax"])
def test_summaries_come_with_the_status(
    output: str, calls: Caller, pushed: Pushed, inputs: sparse.csr_array, expected: sparse.csr_array
) -> None:
    event = calls.event(pushed, inputs, "object", MEMORY_MB, output=output, micro_batches=2)
    status = calls.carry_out(event)
    assert status.results is not None
    values, neurons = decode(status.results[0], inputs.shape[0])
    dense = expected.toarray()
    assert (values == dense.max(axis=1)).all()
    assert (neurons == dense.argmax(axis=1)).all()


@pytest.mark.parametrize("channel", ["queue", "object"])
def test_a_killed_worker_is_named_and_the_others_end(
    channel: str, calls: Caller, pushed: Pushed, inputs: sparse.csr_array
) -> None:
    event = calls.event(pushed, inputs, channel, MEMORY_MB, branching=2)
    calls.carry_out(event)  # so that there are as many processes as ranks
    processes = worker_processes(calls)
    event = calls.event(pushed, sparse.vstack([inputs] * 20).tocsr(), channel, MEMORY_MB, branching=2)
    calls.ask(event)
    claims = event.spec.claim_key(0).rpartition("/")[0] + "/"
    wait_until(lambda: len(list(calls.store.list(claims))) == P, "all ranks have started", 60)
    victim = max(processes)
    os.kill(victim, signal.SIGKILL)
    killed = time.time()
    status = calls.wait(event.spec.run)
    assert isinstance(status.error, WorkerDiedError)
    assert status.error.retryable
    assert status.ended is not None
    assert status.ended - killed < 10  # far from the stall clock: Lambda's record was read
    ranks = calls.metrics(event)["ranks"]
    assert victim not in {rank["process"] for rank in ranks}
    assert {rank["rank"] for rank in ranks} == set(range(P)) - {status.error.rank}
    assert all(rank["error"]["type"] == "WorkerDiedError" for rank in ranks)


def test_a_stopped_worker_ends_the_attempt_by_the_stall_clock(
    calls: Caller, pushed: Pushed, inputs: sparse.csr_array
) -> None:
    """Whichever rank it is, rank 0 included: the others notice, and tell the coordinator."""
    calls.carry_out(calls.event(pushed, inputs, "object", MEMORY_MB))  # so that there are as many processes as ranks
    clocks = Clocks(start_s=60.0, stall_s=4.0, run_s=150.0)
    event = calls.event(pushed, sparse.vstack([inputs] * 20).tocsr(), "object", MEMORY_MB, branching=2, clocks=clocks)
    calls.ask(event)
    claims = event.spec.claim_key(0).rpartition("/")[0] + "/"
    wait_until(lambda: len(list(calls.store.list(claims))) == P, "all ranks have started", 60)
    victim = min(worker_processes(calls))
    os.kill(victim, signal.SIGSTOP)
    try:
        stopped = time.time()
        status = calls.wait(event.spec.run)
    finally:
        os.kill(victim, signal.SIGKILL)
    assert isinstance(status.error, StallError), status.error
    assert status.ended is not None
    assert status.ended - stopped < 60  # far from the run clock
    ranks = calls.metrics(event)["ranks"]
    assert victim not in {rank["process"] for rank in ranks}
    assert {rank["rank"] for rank in ranks} == set(range(P)) - {status.error.rank}


def test_a_killed_coordinator_is_told_of_by_another(
    calls: Caller, pushed: Pushed, inputs: sparse.csr_array, network: fsd.Network
) -> None:
    """Nobody is left to write how its run ended but the coordinator of another run."""
    before = processes_of(f"{calls.stack.name}-coordinator")
    for process in before:  # so that there is one whose work is known
        os.kill(process, signal.SIGKILL)
    event = calls.event(pushed, sparse.vstack([inputs] * 20).tocsr(), "object", MEMORY_MB, branching=2)
    calls.ask(event)
    claims = event.spec.claim_key(0).rpartition("/")[0] + "/"
    wait_until(lambda: len(list(calls.store.list(claims))) == P, "all ranks have started", 60)
    (victim,) = processes_of(f"{calls.stack.name}-coordinator")
    os.kill(victim, signal.SIGKILL)
    whole = calls.push(network, 1)

    def told() -> bool:
        """Coordinators listen while runs of theirs go on."""
        assert calls.carry_out(calls.event(whole, inputs, "serial", MEMORY_MB)).state == "done"
        status = calls.status(event.spec.run)
        return status is not None and status.is_over

    wait_until(told, "another coordinator has told", 60)
    status = calls.wait(event.spec.run)
    assert isinstance(status.error, WorkerDiedError)
    assert "the coordinator ended before the run did" in str(status.error)


@pytest.mark.parametrize("channel", ["queue", "object"])
def test_the_ranks_of_a_dead_coordinator_are_ended_by_their_status(
    calls: Caller, pushed: Pushed, inputs: sparse.csr_array, channel: str
) -> None:
    """As `fsd runs clean RUN` does before it deletes what they have written."""
    for process in processes_of(f"{calls.stack.name}-coordinator"):
        os.kill(process, signal.SIGKILL)
    event = calls.event(pushed, sparse.vstack([inputs] * 20).tocsr(), channel, MEMORY_MB, branching=2)
    calls.ask(event)
    claims = event.spec.claim_key(0).rpartition("/")[0] + "/"
    wait_until(lambda: len(list(calls.store.list(claims))) == P, "all ranks have started", 60)
    (victim,) = processes_of(f"{calls.stack.name}-coordinator")
    os.kill(victim, signal.SIGKILL)
    (status,) = unfinished(calls.store, [event.spec.run])
    freed = end_orphans(calls.clients, calls.stack, [calls.store], attempt_of(status), status.channel)
    assert len(freed) == (channel == "queue")
    reports = read_reports(calls.store, event.spec, range(P))
    assert {report.rank for report in reports} == set(range(P))
    assert all("the coordinator of the run has died" in str(report.failure) for report in reports)


def test_an_event_of_another_rank_s_failure_reaches_its_own_coordinator(
    calls: Caller, pushed: Pushed, inputs: sparse.csr_array
) -> None:
    """Coordinators compete for the records of one queue."""
    one = calls.event(pushed, inputs, "object", MEMORY_MB)
    assert calls.stack.functions is not None
    other = RankEvent(replace(one.spec, run="f" * 32), 3, 0, "object", MEMORY_MB, None, "c0de", "57ac")
    record = {"requestPayload": other.to_json(), "responsePayload": {"errorMessage": "signal: killed"}}
    calls.clients.sqs.send_message(QueueUrl=calls.stack.functions.failures_queue_url, MessageBody=json.dumps(record))
    assert calls.carry_out(one).state == "done"
    left = calls.store.get(told_key(other.spec.prefix))
    assert left is not None
    assert json.loads(left) == record
    failures = FailureQueue(calls.clients, calls.stack.functions.failures_queue_url, UsageMeter())
    assert failures.receive(1) == []


def test_other_code_ends_with_a_retryable_error(calls: Caller, pushed: Pushed, inputs: sparse.csr_array) -> None:
    """Rank 1 of a run whose functions are replaced meanwhile."""
    event = calls.event(pushed, inputs, "object", MEMORY_MB)
    assert calls.stack.functions is not None
    spec = replace(event.spec, deadline=time.time() + 30)
    foreign = RankEvent(spec, 1, 0, "object", MEMORY_MB, None, "another code", "57ac")
    worker = calls.stack.functions.workers[0].arn
    calls.ask(event)
    calls.clients.functions.invoke(
        FunctionName=worker, InvocationType="Event", Payload=json.dumps(foreign.to_json()).encode()
    )
    status = calls.wait(event.spec.run)
    assert isinstance(status.error, StackUpdatedError)
    assert status.error.retryable
    assert "the stack is being updated" in str(status.error)


def test_too_few_free_functions(calls: Caller, pushed: Pushed, inputs: sparse.csr_array) -> None:
    assert calls.stack.functions is not None
    worker = calls.stack.functions.workers[0].arn
    calls.clients.functions.put_function_concurrency(FunctionName=worker, ReservedConcurrentExecutions=2)
    try:
        clocks = Clocks(start_s=4.0, stall_s=30.0, run_s=40.0)
        event = calls.event(pushed, inputs, "object", MEMORY_MB, branching=2, clocks=clocks)
        status = calls.carry_out(event)
    finally:
        calls.clients.functions.delete_function_concurrency(FunctionName=worker)
    assert isinstance(status.error, StartError)
    assert "free concurrency" in str(status.error)
    assert status.error.retryable


def test_a_rank_that_never_starts(calls: Caller, pushed: Pushed, inputs: sparse.csr_array) -> None:
    """Lambda has taken its event, and nothing comes of it."""
    calls.carry_out(calls.event(pushed, inputs, "object", MEMORY_MB))  # so that there are as many processes as ranks
    frozen = min(worker_processes(calls))
    os.kill(frozen, signal.SIGSTOP)
    try:
        event = calls.event(pushed, inputs, "object", MEMORY_MB, clocks=Clocks(start_s=5.0, stall_s=60.0, run_s=60.0))
        error = calls.carry_out(event).error
    finally:
        os.kill(frozen, signal.SIGCONT)
    assert isinstance(error, StartError)
    assert "ranks started within 5 s (missing: " in str(error)
    assert f"of {P} ranks" in str(error)
    assert "free concurrency" in str(error)
    assert error.retryable


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "the event has version 2, and these functions read version 1"),
        ({"plan": "0" * 32}, f"plan {'0' * 32} is not on stack"),
        ({"features": 7}, "the plan takes 1024 features per sample, not 7"),
        ({"memory_mb": 640}, "has no workers of 640 MB; it has 512"),
        ({"channel": "queue", "workers": 60}, "has queues for 6 workers, not 60"),
        ({"workers": 40, "branching": 1}, "is 40 levels deep"),
        ({"workers": 5}, "belongs to another plan than the run"),
    ],
    ids=str,
)
def test_what_cannot_run_is_refused_at_once(
    change: dict[str, object], message: str, calls: Caller, pushed: Pushed, inputs: sparse.csr_array
) -> None:
    event = calls.event(pushed, inputs, "object", MEMORY_MB)
    calls.ask(event.to_json() | change)
    status = calls.wait(event.spec.run)
    assert status.state == "failed"
    assert status.error is not None
    assert message in str(status.error)
    assert not status.error.retryable
    assert "\n" not in str(status.error)


@pytest.fixture(scope="module")
def detecting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    """The emulator counts chains of invocations for its own Python runtimes, and stops them at 16 as AWS does."""
    folder = tmp_path_factory.mktemp("detecting")
    with functions_stack(folder, runtime="python3.11") as stack, caller(stack) as made:
        yield made


def test_the_deepest_tree_passes_where_recursion_is_detected(detecting: Caller, inputs: sparse.csr_array) -> None:
    shallow = fsd.graph_challenge(1024, 10)  # the tree is what matters
    chain = detecting.push(shallow, DEEPEST_TREE)
    event = detecting.event(chain, inputs, "object", MEMORY_MB, branching=1)
    outputs, _ = carry_out(detecting, chain, event)
    assert same(outputs, serial(shallow, inputs))


def test_a_deeper_tree_would_be_stopped(detecting: Caller, inputs: sparse.csr_array, tmp_path: Path) -> None:
    """What the coordinator's refusal saves its caller from."""
    chain = detecting.push(fsd.graph_challenge(1024, 10), 18)
    event = detecting.event(chain, inputs, "object", MEMORY_MB, branching=1)
    assert detecting.stack.functions is not None
    spec = replace(event.spec, deadline=time.time() + PATIENT.run_s)
    first = RankEvent(spec, 0, None, "object", MEMORY_MB, None, deployed_code(tmp_path), stack_digest(detecting))
    detecting.clients.functions.invoke(
        FunctionName=detecting.stack.functions.workers[0].arn,
        InvocationType="Event",
        Payload=json.dumps(first.to_json()).encode(),
    )
    wait_until(lambda: detecting.store.stat(spec.report_key(0)) is not None, "rank 0 has reported", PATIENT.run_s)
    error = json.loads(detecting.store.get(spec.report_key(0)) or b"")["error"]
    assert "RecursiveInvocationException" in error["message"]
    assert error["rank"] + 1 > DEEPEST_TREE


def test_a_second_invocation_of_an_attempt_does_nothing(
    calls: Caller, pushed: Pushed, inputs: sparse.csr_array, expected: sparse.csr_array
) -> None:
    """Lambda may deliver an asynchronous event twice."""
    event = calls.event(pushed, inputs, "queue", MEMORY_MB)
    assert calls.stack.functions is not None
    calls.ask(event)
    answer = calls.clients.functions.invoke(
        FunctionName=calls.stack.functions.coordinator, Payload=json.dumps(event.to_json()).encode()
    )
    first = json.loads(answer["Payload"].read())
    status = calls.wait(event.spec.run)
    assert status.state == "done"
    assert same(calls.outputs(pushed, event, status), expected)
    assert first == {"duplicate": True} or first["state"] == "done"


def test_a_late_event_ends_at_once(calls: Caller, pushed: Pushed, inputs: sparse.csr_array) -> None:
    event = calls.event(pushed, inputs, "object", MEMORY_MB)
    assert calls.stack.functions is not None
    late = RankEvent(replace(event.spec, deadline=time.time() - 1), 0, None, "object", MEMORY_MB, None, "c0de", "57ac")
    answer = calls.clients.functions.invoke(
        FunctionName=calls.stack.functions.workers[0].arn, Payload=json.dumps(late.to_json()).encode()
    )
    assert json.loads(answer["Payload"].read()) == {"rank": 0, "result": "late"}
    assert calls.store.stat(event.spec.claim_key(0)) is None


def stack_digest(calls: Caller) -> str:
    return hashlib.sha256(calls.plans.get(STACK_KEY) or b"").hexdigest()[:32]


def test_a_stack_that_has_changed_is_read_anew(
    calls: Caller, pushed: Pushed, inputs: sparse.csr_array, expected: sparse.csr_array
) -> None:
    """Functions outlive what they have read of the stack."""
    before = calls.plans.get(STACK_KEY)
    assert before is not None
    value = json.loads(before)
    calls.plans.put(STACK_KEY, json.dumps({**value, "lanes": []}).encode())
    event = calls.event(pushed, inputs, "queue", MEMORY_MB)
    error = calls.carry_out(event).error
    calls.plans.put(STACK_KEY, before)
    assert error is not None
    assert "has queues for 0 workers" in str(error)
    event = calls.event(pushed, inputs, "queue", MEMORY_MB)
    outputs, _ = carry_out(calls, pushed, event)
    assert same(outputs, expected)
