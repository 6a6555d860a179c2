"""The Terraform deployment at work: functions under their own roles, and callers with only the module's policy."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest
from botocore.exceptions import ClientError
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.aws.events import RunEvent
from fsd_inference.aws.lanes import LaneState, LaneTable, open_lanes
from fsd_inference.config import Clocks
from fsd_inference.errors import LaneError
from fsd_inference.usage import UsageMeter
from tests.support.calls import Caller, Pushed, caller
from tests.support.deployed import LANES, MEMORY_MB, RANKS, Deployed, deployed_stack
from tests.support.permissions import DENIED, PERMITTED, REFUSED, Request, names_of
from tests.support.processes import wait_until
from tests.support.runs import same, serial

HASTE = 30
"""How much faster than ours a clock runs by which a lease's time is over soon."""
STOPPING_S = 31.0
"""What a lease lasts longer than its run: time to stop, and the store's clock, which tells whole seconds."""

# The first test waits for Terraform, which itself waits a minute for buckets and queues that are there at once.
pytestmark = [pytest.mark.emulator, pytest.mark.functions, pytest.mark.terraform, pytest.mark.timeout(500)]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    with deployed_stack(tmp_path_factory.mktemp("deployed")) as made:
        yield made


@pytest.fixture(scope="module")
def calls(deployed: Deployed) -> Iterator[Caller]:
    with caller(deployed.stack) as made:
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
    return calls.push(network, RANKS)


def test_the_parties_are_who_they_should_be(deployed: Deployed, calls: Caller) -> None:
    """The functions have their roles' credentials, and this process has the caller's."""
    name = deployed.stack.name
    who = {
        party: deployed.client(party, "sts").get_caller_identity()["Arn"].partition("::")[2]
        for party in ("admin", "caller", "coordinator", "worker")
    }
    account = "000000000000"
    assert who == {
        "admin": f"{account}:root",
        "caller": f"{account}:user/caller",
        "coordinator": f"{account}:assumed-role/{name}-coordinator/{name}-coordinator",
        "worker": f"{account}:assumed-role/{name}-worker/{name}-worker-{MEMORY_MB}",
    }
    caller_key = deployed.client("caller", "sts")._request_signer._credentials.access_key
    assert os.environ["AWS_ACCESS_KEY_ID"] == caller_key


@pytest.mark.parametrize(("channel", "workers"), [("serial", 1), ("queue", RANKS), ("object", RANKS)])
def test_runs_answer_bit_for_bit(
    channel: str,
    workers: int,
    deployed: Deployed,
    calls: Caller,
    network: fsd.Network,
    pushed: Pushed,
    inputs: sparse.csr_array,
    expected: sparse.csr_array,
) -> None:
    plan = pushed if workers == RANKS else calls.push(network, workers)
    seconds, loads = [], []
    for _ in range(2):
        event = calls.event(plan, inputs, channel, MEMORY_MB, branching=2)
        started = time.time()
        status = calls.carry_out(event)
        assert status.state == "done", status.error
        outputs = calls.outputs(plan, event, status)
        seconds.append(time.time() - started)
        assert same(outputs, expected)
        ranks = calls.metrics(event)["ranks"]
        loads.append(sum(rank["load_requests"] for rank in ranks))
        assert len({rank["process"] for rank in ranks}) == workers
        assert [rank["starter"] for rank in ranks] == [None, 0, 0, 1, 1, 2][:workers]
    print(f"\n{channel}, P={workers}: first run {seconds[0]:.1f} s, second (warm) {seconds[1]:.1f} s; loads {loads}")


@pytest.fixture(scope="module")
def names(deployed: Deployed) -> dict[str, str]:
    return names_of(deployed)


def refusal(request: Request, deployed: Deployed, names: dict[str, str]) -> str:
    """Return the code of the error that a request is answered with; nothing if it is carried out."""
    try:
        request.send(deployed, names)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


def test_the_emulator_refuses_at_all(deployed: Deployed, names: dict[str, str]) -> None:
    """Before its word is taken on who may do what: it tells parties, policies and signatures apart."""
    purge = {"QueueUrl": "{queue}"}
    assert refusal(Request("worker", "sqs", "purge_queue", purge), deployed, names) in DENIED
    assert refusal(Request("admin", "sqs", "purge_queue", purge), deployed, names) == ""
    delete = {"Bucket": "{stack}-gone"}
    deployed.client("admin", "s3").create_bucket(Bucket=f"{deployed.stack.name}-gone")
    assert refusal(Request("worker", "s3", "delete_bucket", delete), deployed, names) in DENIED
    assert refusal(Request("admin", "s3", "delete_bucket", delete), deployed, names) == ""

    iam = deployed.client("admin", "iam")
    deployed.make_user("somebody")
    for resource, expected in (("*-lane0-rank1", DENIED), ("*-lane0-rank0", {""})):
        statement = {"Effect": "Allow", "Action": "sqs:PurgeQueue", "Resource": f"arn:aws:sqs:*:*:{resource}"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_user_policy(UserName="somebody", PolicyName="purge", PolicyDocument=policy)
        assert refusal(Request("somebody", "sqs", "purge_queue", purge), deployed, names) in expected
    deployed.make_forger("forger", "caller")
    assert refusal(Request("forger", "sqs", "purge_queue", purge), deployed, names) == "SignatureDoesNotMatch"


def test_a_role_that_lacks_a_right_ends_its_run(
    deployed: Deployed, calls: Caller, pushed: Pushed, inputs: sparse.csr_array
) -> None:
    """Functions are refused like anybody else, and say what they may not do."""
    with deployed.without_batches("worker"):
        status = calls.carry_out(calls.event(pushed, inputs, "queue", MEMORY_MB, branching=2))
    assert status.state == "failed"
    assert status.error is not None
    print(f"\n{status.error}")
    assert f"{deployed.stack.name}-worker" in str(status.error)
    assert "not authorized to perform: sns:PublishBatch" in str(status.error)
    assert not status.error.retryable


@pytest.mark.parametrize("request_", PERMITTED, ids=str)
def test_permitted(request_: Request, deployed: Deployed, names: dict[str, str]) -> None:
    assert refusal(request_, deployed, names) == request_.answer


@pytest.mark.parametrize("request_", REFUSED, ids=str)
def test_refused(request_: Request, deployed: Deployed, names: dict[str, str]) -> None:
    assert refusal(request_, deployed, names) in DENIED


@pytest.fixture(scope="module")
def small(calls: Caller) -> Pushed:
    """A network whose runs are soon over, unless they are frozen."""
    return calls.push(fsd.graph_challenge(1024, 20), 3)


@pytest.fixture(scope="module")
def lanes(calls: Caller) -> LaneTable:
    return open_lanes(calls.store, calls.clients, calls.stack, meter=UsageMeter())


def leases(lanes: LaneTable) -> dict[str, LaneState]:
    """Return the leases of lanes that are not free, by the runs that have them."""
    return {lease.run: lease for lease in lanes.look() if lease.state != "free"}


@contextmanager
def frozen(deployed: Deployed) -> Iterator[None]:
    """Stop all workers where they are, for the length of a `with` block."""
    workers = deployed.processes("worker")
    for process in workers:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in workers:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)


@contextmanager
def frozen_at_work(deployed: Deployed, calls: Caller, event: RunEvent) -> Iterator[None]:
    """Ask for a run, and stop all workers as soon as its rank 0 is at work, for the length of a `with` block."""
    calls.ask(event)
    wait_until(lambda: calls.store.stat(event.spec.claim_key(0)) is not None, "rank 0 is at work", 60)
    with frozen(deployed):
        assert is_running(calls, event.spec.run)
        yield


def is_running(calls: Caller, run: str) -> bool:
    status = calls.status(run)
    assert status is None or not status.is_over, f"the run ended too soon to be looked at: {status.error}"
    return status is not None and status.state == "running"


def test_runs_at_once_take_a_lane_each_and_others_wait_or_are_told_so(
    deployed: Deployed, calls: Caller, lanes: LaneTable, small: Pushed, inputs: sparse.csr_array
) -> None:
    first, second, patient, hasty = (calls.event(small, inputs, "queue", MEMORY_MB) for _ in range(4))
    hasty = replace(hasty, lane_wait_s=0.5)
    with frozen_at_work(deployed, calls, first):
        calls.ask(second)
        wait_until(lambda: is_running(calls, second.spec.run), "the second run has a lane", 25)
        with frozen(deployed):  # whom the second run has started
            held = leases(lanes)
            assert set(held) == {first.spec.run, second.spec.run}
            calls.ask(patient)
            status = calls.carry_out(hasty)
    assert status.state == "failed"
    assert status.error is not None
    assert status.error.retryable
    assert str(status.error).count("no lane is free after 0.5 s") == 1
    for run in held:
        assert f"held by run {run}, attempt 0, until" in str(status.error)

    statuses = [calls.wait(event.spec.run) for event in (first, second, patient)]
    assert [status.state for status in statuses] == ["done"] * 3, statuses
    ranks_ended = [max(rank["ended"] for rank in calls.metrics(event)["ranks"]) for event in (first, second)]
    launched = statuses[-1].launched
    assert launched is not None
    assert launched > min(ranks_ended)
    assert leases(lanes) == {}


def test_a_killed_coordinator_leaves_its_lane_no_longer_than_its_run_could_last(
    deployed: Deployed, calls: Caller, lanes: LaneTable, small: Pushed, inputs: sparse.csr_array
) -> None:
    clocks = Clocks(start_s=20.0, stall_s=20.0, run_s=40.0)
    event = calls.event(small, inputs, "queue", MEMORY_MB, clocks=clocks)
    with frozen_at_work(deployed, calls, event):
        for process in deployed.processes("coordinator"):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        lease = leases(lanes)[event.spec.run]
    status = calls.status(event.spec.run)
    assert status is not None
    assert status.launched is not None
    assert lease.state == "held"
    assert lease.until.timestamp() <= status.launched + clocks.run_s + STOPPING_S

    # The ranks end by themselves. The lane is not had before its time is over, and then by whoever wants it.
    wait_until(lambda: calls.store.stat(event.spec.report_key(0)) is not None, "rank 0 has ended", 60)
    with pytest.raises(LaneError, match=f"held by run {event.spec.run}, attempt 0, until"):
        lanes.acquire("a" * 32, 0, 1.0, 0.0, [lease.lane])
    purged: list[int] = []
    later = LaneTable(
        calls.store,
        LANES,
        purge=purged.append,
        settle_s=0.0,
        lifetime_s=1200.0,
        clock=lambda: HASTE * time.monotonic(),
        sleep=lambda seconds: time.sleep(seconds / HASTE),
    )
    taken = later.acquire("a" * 32, 0, 1.0, clocks.run_s + 2 * STOPPING_S, [lease.lane])
    assert purged == [lease.lane]
    lanes.release(taken)
    assert leases(lanes) == {}
