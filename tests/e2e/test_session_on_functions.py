"""Sessions and the command line on functions: push, infer, and recovery when a process is killed."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.aws.clients import Clients
from fsd_inference.aws.stack import load_stack, save_stack
from fsd_inference.chaos.processes import processes_of
from fsd_inference.cost.metered import function_times
from fsd_inference.errors import SettingError, WorkerDiedError
from fsd_inference.limits import HASH_FOLDERS
from fsd_inference.stack_description import StackSpec
from fsd_inference.threads import ThreadPool
from tests.support.cli import Fsd, fsd_in
from tests.support.functions import functions_stack
from tests.support.processes import wait_until
from tests.support.runs import same, serial

P = 4

pytestmark = [pytest.mark.emulator, pytest.mark.functions]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with stack.json, a network `net` and inputs `x.npz`."""
    folder = tmp_path_factory.mktemp("session")
    with functions_stack(folder, ranks=P, memory_mb=(512, 1769, 2048, 3008)):
        fsd.graph_challenge(1024, 24).save(folder / "net")
        sparse.save_npz(folder / "x.npz", fsd.digits(neurons=1024, samples=300))
        yield folder


@pytest.fixture(scope="module")
def inputs(place: Path) -> sparse.csr_array:
    return sparse.csr_array(sparse.load_npz(place / "x.npz"))


@pytest.fixture(scope="module")
def expected(place: Path, inputs: sparse.csr_array) -> sparse.csr_array:
    return serial(fsd.Network.load(place / "net"), inputs)


@pytest.fixture(scope="module")
def pushed(place: Path) -> Path:
    """The network, pushed for 1 and for P workers."""
    for workers in (1, P):
        fsd.push(place / "net", stack=place / "stack.json", workers=workers)
    return place / "net"


@pytest.fixture
def commands(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Fsd:
    monkeypatch.chdir(place)
    return fsd_in(capsys)


def test_push_then_infer(commands: Fsd, place: Path, expected: sparse.csr_array) -> None:
    """What a user does, from a network that is not there to the same bits as here."""
    infer = f"infer net x.npz -o out.npz --channel queue --workers {P} --branching 2 --stack stack.json --memory 1769"
    refused = commands(*infer.split(), "--partition", "block")
    assert refused.code == 2
    push = f"fsd push net --stack stack.json --workers {P} --partition block"
    assert refused.error() == f"the network is not on the stack for {P} workers; push it first: {push}"
    first = commands(*shlex.split(push)[1:], "--json").json()
    assert first["sent_bytes"] > 1e6
    again = commands(*shlex.split(push)[1:], "--json").json()
    assert (again["sent_bytes"], again["found_bytes"], again["plan"]) == (0, first["sent_bytes"], first["plan"])
    assert commands("infer", "net", "x.npz", "-o", "serial.npz", "--verify", "--report", "serial").code == 0
    said = commands(*infer.split(), "--report", "run", "--verify-against", "serial", "--json")
    assert said.code == 0, said.stderr
    assert commands("diff", "serial", "run").code == 0
    assert same(sparse.csr_array(sparse.load_npz("out.npz")), expected)
    assert said.json()["requests"]["lambda.invoke"] == 1 + P
    assert [rank["starter"] for rank in said.json()["ranks"]] == [None, 0, 0, 1]


@pytest.mark.parametrize("synchronous", [False, True], ids=["asynchronous", "synchronous"])
@pytest.mark.parametrize(("channel", "workers"), [("serial", 1), ("queue", P), ("object", P)])
def test_a_session_answers_bit_for_bit(
    channel: str,
    workers: int,
    synchronous: bool,
    place: Path,
    pushed: Path,
    inputs: sparse.csr_array,
    expected: sparse.csr_array,
) -> None:
    stack = place / "stack.json"
    functions = fsd.FunctionSettings(synchronous=synchronous)
    with fsd.Session(pushed, channel=channel, workers=workers, stack=stack, functions=functions) as session:
        answers = [session.infer(inputs) for _ in range(2)]
    for answer in answers:
        assert same(answer.outputs, expected)
        assert len({rank.process for rank in answer.report.ranks}) == workers
        assert os.getpid() not in {rank.process for rank in answer.report.ranks}
    seconds = ", ".join(f"{answer.report.wall_s:.1f}" for answer in answers)
    print(f"{channel}, P={workers}, {'one call' if synchronous else 'followed'}: {seconds} s")


def test_large_results_and_summaries(place: Path, pushed: Path) -> None:
    """20,000 samples, all alive: results beyond what a status holds."""
    network = fsd.random_network([64, 64], connections=4, seed=3)
    fsd.push(network, stack=place / "stack.json", workers=2)
    x = np.random.default_rng(1).random((20_000, 64), np.float32)
    for output in ("rows", "argmax"):
        with (
            fsd.Session(network, channel="object", workers=2, stack=place / "stack.json", output=output) as distributed,
            fsd.Session(network, output=output) as alone,
        ):
            found, wanted = distributed.infer(x), alone.infer(x)
        if output == "rows":
            assert same(found.outputs, wanted.outputs)
        else:
            assert found.argmax is not None
            assert wanted.argmax is not None
            assert found.argmax.tolist() == wanted.argmax.tolist()


def test_shards_of_a_directory(
    place: Path, inputs: sparse.csr_array, expected: sparse.csr_array, tmp_path: Path
) -> None:
    shards, stack = tmp_path / "cut", place / "stack.json"
    fsd.partition(fsd.Network.load(place / "net"), shards, workers=3, method="random")
    with fsd.Session(shards, channel="object", stack=stack) as session:
        with pytest.raises(SettingError, match=f"push it first: fsd push {shards} --stack {stack}$"):
            session.infer(inputs)
        fsd.push(shards, stack=stack)
        assert same(session.infer(inputs).outputs, expected)


def test_runs_that_do_not_fit_beside_each_other_follow_each_other(
    place: Path, pushed: Path, inputs: sparse.csr_array, expected: sparse.csr_array
) -> None:
    stack, size = load_stack(place / "stack.json"), 3008  # of this test alone
    assert stack.functions is not None
    worker = stack.functions.worker(size)
    assert worker is not None
    clients = Clients.of_stack(stack)
    clients.functions.put_function_concurrency(FunctionName=worker.arn, ReservedConcurrentExecutions=2 * P - 1)
    clients.close()
    many = sparse.csr_array(sparse.vstack([inputs] * 20))
    settings: dict[str, Any] = {"channel": "object", "workers": P, "stack": place / "stack.json"}
    with ExitStack() as opened, ThreadPool(2) as threads:
        sessions = [
            opened.enter_context(fsd.Session(pushed, functions=fsd.FunctionSettings(memory_mb=size), **settings))
            for _ in range(2)
        ]
        answers = list(threads.map(lambda session: session.infer(many), sessions))
        with pytest.raises(SettingError, match=rf"8 workers .* reserved for workers of 3008 MB \({2 * P - 1}\)"):
            opened.enter_context(
                fsd.Session(pushed, functions=fsd.FunctionSettings(memory_mb=size), **settings | {"workers": 2 * P})
            ).prepare()
    for answer in answers:
        assert same(answer.outputs, sparse.csr_array(sparse.vstack([expected] * 20)))
        assert answer.report.attempts == 1
    spans = sorted((min(rank.started or 0.0 for rank in ranks), max(rank.ended or 0.0 for rank in ranks))
                   for ranks in (answer.report.ranks for answer in answers))  # fmt: skip
    assert spans[0][1] <= spans[1][0]


def test_what_a_run_leaves(place: Path, pushed: Path, inputs: sparse.csr_array) -> None:
    stack = load_stack(place / "stack.json")
    clients = Clients.of_stack(stack)
    store = clients.open_bucket(stack.run_buckets[0])
    before = {info.key for info in store.list("")}
    for channel in ("queue", "object"):
        with fsd.Session(pushed, channel=channel, workers=P, stack=place / "stack.json") as session:
            session.infer(inputs)
    left = {info.key for info in store.list("")} - before
    store.close()
    clients.close()
    # What ranks exchanged through objects, under folders by a hash, expires.
    assert {key.split("/")[0] for key in left} <= {"status", "runs", "lanes", "lane-clock", *HASH_FOLDERS}
    assert {key.rpartition("/")[2] for key in left if key.startswith("runs/")} == {"metrics", "coordinator"}


# --- replicas ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("synchronous", [False, True], ids=["asynchronous", "synchronous"])
def test_replicas_answer_bit_for_bit(
    synchronous: bool,
    place: Path,
    pushed: Path,
    inputs: sparse.csr_array,
    expected: sparse.csr_array,
    tmp_path: Path,
) -> None:
    functions = fsd.FunctionSettings(synchronous=synchronous)
    stack = place / "stack.json"
    with fsd.Session(pushed, replicas=3, stack=stack, functions=functions, verify=True) as session:
        answers = [session.infer(inputs[:299]), session.infer(inputs[:2])]
    with fsd.Session(pushed, verify=True) as alone:
        digests = [alone.infer(inputs[:samples]).report.digests for samples in (299, 2)]
    for answer, expected_digests, replicas, samples in zip(answers, digests, (3, 2), (299, 2), strict=True):
        assert answer.outputs is not None
        assert same(answer.outputs, sparse.csr_array(expected[:samples]))
        report = answer.report
        assert report.digests is not None
        assert replace(report.digests, plan=None) == expected_digests
        assert (report.replicas, report.workers, report.samples) == (replicas, 1, samples)
        assert [rank.rank for rank in report.ranks] == list(range(replicas))
        assert os.getpid() not in {rank.process for rank in report.ranks}
        assert len(report.coordinators) == replicas
        assert report.usage.requests["lambda.invoke"] == 2 * replicas  # a coordinator and a worker each
        workers, coordinators = function_times(report)
        assert (workers.invocations, coordinators.invocations) == (replicas, replicas)
    answers[0].report.save(tmp_path)
    assert "serial, 3 replicas, 299 samples" in (tmp_path / "report.html").read_text()


def test_a_killed_replica_is_tried_again_alone(
    place: Path, pushed: Path, inputs: sparse.csr_array, expected: sparse.csr_array
) -> None:
    stack = load_stack(place / "stack.json")
    many = sparse.csr_array(sparse.vstack([inputs] * 60))
    size = 2048  # of this test alone
    functions = fsd.FunctionSettings(memory_mb=size)
    with fsd.Session(pushed, replicas=3, stack=place / "stack.json", functions=functions) as session:
        session.infer(many)
        workers = processes_of(f"{stack.name}-worker-{size}")
        assert len(workers) == 3

        def kill() -> None:
            wait_until(lambda: len(claims(stack)) == 3, "all replicas have started")
            os.kill(max(workers), signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        answer = session.infer(many)
        killer.join()
    assert answer.outputs is not None
    assert same(answer.outputs, sparse.csr_array(sparse.vstack([expected] * 60)))
    assert answer.report.attempts == 2
    assert answer.report.usage.requests["lambda.invoke"] == 8  # three replicas and the one that was tried again


# --- what is foreseen -------------------------------------------------------------------------------------------------

TIMED = {"sqs.receive", "s3.get", "s3.head"}  # how often someone looks
COLD = {"lambda.settings"}  # of a coordinator that starts cold, as is predicted; earlier runs may have warmed it


@pytest.mark.parametrize(
    ("channel", "workers", "replicas"), [("serial", 1, 1), ("serial", 1, 3), ("queue", P, 1), ("object", P, 1)]
)
def test_predicted_and_metered_side_by_side(
    channel: str, workers: int, replicas: int, place: Path, pushed: Path, inputs: sparse.csr_array, tmp_path: Path
) -> None:
    stack = place / "stack.json"
    with fsd.Session(pushed, channel=channel, workers=workers, replicas=replicas, stack=stack) as session:
        foreseen = session.predict(inputs)
        report = session.infer(inputs, predicted=foreseen).report
    assert foreseen is not None
    assert report.predicted == foreseen
    counted = report.usage
    for kind in sorted({*foreseen.usage.requests, *counted.requests}):
        print(f"{channel}, P={workers}, R={replicas}: {kind}: {foreseen.usage.requests[kind]} {counted.requests[kind]}")
    print(f"wall {foreseen.wall_s} {report.wall_s}")
    assert set(foreseen.usage.requests) == set(counted.requests) | COLD
    assert foreseen.wall_s is not None
    notes = max(foreseen.wall_s, report.wall_s) / 2  # rank 0 says how far it is every two seconds
    for kind in counted.requests.keys() - TIMED - COLD:
        slack = replicas * (1 + notes) if kind == "s3.put" else 0
        assert foreseen.usage.requests[kind] == pytest.approx(counted.requests[kind], abs=slack), kind
    assert foreseen.usage.wire_bytes == pytest.approx(counted.wire_bytes, rel=0.25)
    assert [function.invocations for function in foreseen.functions] == [workers * replicas, replicas]
    report.save(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "Cost and counts: predicted against metered" in page
    for value in (foreseen.usage, counted):
        assert f"{sum(value.requests.values()):,}" in page


def test_the_plan_is_run_on_functions(
    commands: Fsd, pushed: Path, expected: sparse.csr_array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    infer = "infer net x.npz -o planned.npz --plan auto --stack stack.json --report planned --json"
    said = commands(*infer.split())
    assert said.code == 0, said.stderr
    assert same(sparse.csr_array(sparse.load_npz("planned.npz")), expected)
    assert (said.json()["channel"], said.json()["memory_mb"]) == ("serial", 512)
    assert said.json()["predicted"]["usage"]["requests"]["lambda.invoke"] == 2
    compared = commands("report", "planned", "--json").json()["runs"][0]
    assert compared["predicted"]["usd"] > 0
    assert compared["predicted"]["requests"] == pytest.approx(
        compared["requests"], rel=0.6
    )  # of a function that is cold


# --- lanes ------------------------------------------------------------------------------------------------------------


def test_two_runs_at_once_take_two_lanes_and_a_third_waits(
    place: Path, pushed: Path, inputs: sparse.csr_array, expected: sparse.csr_array
) -> None:
    many = sparse.vstack([inputs] * 10).tocsr()
    answers: list[fsd.Inference] = []

    def run() -> None:
        with fsd.Session(pushed, channel="queue", workers=P, stack=place / "stack.json") as session:
            answers.append(session.infer(many))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 3
    for answer in answers:
        assert answer.outputs is not None
        assert same(answer.outputs[:300], expected)


# --- what is killed ---------------------------------------------------------------------------------------------------


def test_a_killed_worker_is_named(place: Path, pushed: Path, inputs: sparse.csr_array) -> None:
    stack = load_stack(place / "stack.json")
    many = sparse.vstack([inputs] * 60).tocsr()
    size = 1769  # no other test has more than P of it at a time
    with fsd.Session(
        pushed,
        channel="queue",
        workers=P,
        stack=place / "stack.json",
        functions=fsd.FunctionSettings(memory_mb=size),
        failures=fsd.FailurePolicy(attempts=1),
    ) as session:
        session.infer(inputs)
        workers = processes_of(f"{stack.name}-worker-{size}")
        assert len(workers) == P
        killed: list[float] = []

        def kill() -> None:
            wait_until(lambda: len(claims(stack)) == P, "all ranks have started")
            os.kill(max(workers), signal.SIGKILL)
            killed.append(time.monotonic())

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(WorkerDiedError) as caught:
            session.infer(many)
        killer.join()
    assert time.monotonic() - killed[0] < 10
    assert caught.value.rank is not None
    assert caught.value.retryable


def claims(stack: StackSpec) -> list[str]:
    clients = Clients.of_stack(stack)
    store = clients.open_bucket(stack.run_buckets[0])
    found = [info.key for info in store.list("runs/") if "/claims/" in info.key]
    store.close()
    clients.close()
    return found


def test_a_killed_client_leaves_what_expires(place: Path, pushed: Path, inputs: sparse.csr_array) -> None:
    """The run ends without it and gives its lane back."""
    stack = load_stack(place / "stack.json")
    sparse.save_npz(place / "many.npz", sparse.vstack([inputs] * 10))
    command = f"infer net many.npz -o many-out.npz --channel queue --workers {P} --stack stack.json"
    program = "from fsd_inference.cli.main import main; main()"
    client = subprocess.Popen([sys.executable, "-c", program, *command.split()], cwd=place)
    wait_until(lambda: bool(claims(stack)), "the run has begun")
    client.kill()
    client.wait()
    clients = Clients.of_stack(stack)
    store = clients.open_bucket(stack.run_buckets[0])

    def lanes() -> list[str]:
        return [json.loads(store.get(info.key) or b"{}")["state"] for info in store.list("lanes/")]

    try:
        assert "held" in lanes()
        wait_until(lambda: "held" not in lanes(), "no lane is held", 60)
    finally:
        store.close()
        clients.close()
    assert not (place / "many-out.npz").exists()


# --- what is refused --------------------------------------------------------------------------------------------------


def test_each_refusal_is_one_line(commands: Fsd, place: Path, pushed: Path) -> None:
    infer = f"infer net x.npz -o no.npz --channel queue --workers {P} --stack stack.json".split()
    stack = load_stack(place / "stack.json")
    assert stack.functions is not None
    value = json.loads((place / "stack.json").read_text())
    (place / "old.json").write_text(json.dumps(value | {"version": 1}))
    (place / "other.json").write_text("{}")
    gone = stack.functions.coordinator + "-gone"
    save_stack(replace(stack, functions=replace(stack.functions, coordinator=gone)), place / "gone.json")
    for flags, code, message in (
        (
            [*infer, "--stack", "old.json"],
            2,
            "old.json: 'version' is 1, and this program reads 2: create the stack again",
        ),
        ([*infer, "--stack", "other.json"], 2, "other.json: 'format' is missing"),
        ([*infer, "--stack", "."], 2, "cannot read .: Is a directory"),
        ([*infer, "--memory", "640"], 2, "has no workers of 640 MB; it has 512, 1769, 2048"),
        ([*infer, "--threads", "2"], 2, "whose threads follow from their memory"),
        ([*infer, "--workers", "2"], 2, "the network is not on the stack for 2 workers; push it first: fsd push net"),
        ([*infer, "--workers", "5"], 2, f"has queues for {P} workers, not 5"),
        ([*infer, "--workers", "1001", "--channel", "object"], 2, "can run at a time"),
        ([*infer, "--workers", "40", "--branching", "1", "--channel", "object"], 2, "is 40 levels deep"),
        ([*infer, "--stack", "gone.json"], 1, f"cannot invoke the coordinator {gone}: the service answered 404"),
        ([*infer, "--channel", "local"], 2, "a stack serves the channels serial, queue and object, not 'local'"),
    ):
        said = commands(*flags)
        assert said.code == code, said
        assert message in said.error(), said.error()
    assert not (place / "no.npz").exists()
