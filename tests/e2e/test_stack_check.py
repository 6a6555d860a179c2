"""`fsd stack check` and `fsd runs` on a stack with functions: what they find, print and must not change."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fsd_inference as fsd
from fsd_inference.aws.backends import open_buckets
from fsd_inference.aws.clients import Clients
from fsd_inference.aws.lanes import open_lanes
from fsd_inference.aws.stack import load_stack, save_stack
from fsd_inference.chaos.proxy import Fault, FaultProxy, Request
from fsd_inference.stack_description import StackSpec
from fsd_inference.usage import UsageMeter
from tests.support.cli import Fsd, fsd_in
from tests.support.functions import functions_stack

P = 3

pytestmark = [pytest.mark.emulator, pytest.mark.functions]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("check")
    with functions_stack(folder, ranks=P, memory_mb=(512, 1769)):
        yield folder


@pytest.fixture(scope="module")
def stack(place: Path) -> StackSpec:
    return load_stack(place / "stack.json")


@pytest.fixture(scope="module")
def clients(stack: StackSpec) -> Iterator[Clients]:
    made = Clients.of_stack(stack)
    yield made
    made.close()


@pytest.fixture
def commands(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Fsd:
    monkeypatch.chdir(place)
    return fsd_in(capsys)


def findings(commands: Fsd, file: str = "stack.json") -> dict[str, list[str]]:
    """Return what a check says that is not in order, by what it is about."""
    said = commands("stack", "check", file, "--json")
    found: dict[str, list[str]] = {}
    for finding in said.json()["findings"]:
        if finding["state"] != "ok":
            found.setdefault(finding["what"], []).append(finding["text"])
    assert said.code == (1 if found else 0), said
    assert said.json()["ready"] == (not found)
    return found


def test_a_stack_in_order(commands: Fsd, stack: StackSpec, clients: Clients) -> None:
    said = commands("stack", "check", "stack.json")
    assert said.code == 0, said
    assert f"{stack.name} is ready" in said.stdout
    for line in (
        "ok       lane 1: each of 3 queues receives its own messages and no others",
        "ok       concurrency: the largest run has P = ",
        " (over queues: 3)",
        "ok       invocation: the coordinator may be invoked",
        "all functions have the code",
        "absent ones answer 404",
    ):
        assert line in said.stderr
    assert not left_in_queues(clients, stack)


def left_in_queues(clients: Clients, stack: StackSpec) -> int:
    names: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    urls = [url for lane in stack.lanes for url in lane.queue_urls]
    answers = [clients.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"] for url in urls]
    return sum(int(value) for answer in answers for value in answer.values())


def settle(clients: Clients, function: str) -> None:
    """Wait until a change has taken place, so that the next test does not find the function changing."""
    for waiter in ("function_updated_v2", "function_active_v2"):
        clients.functions.get_waiter(waiter).wait(FunctionName=function)


def test_what_is_wrong_with_functions(commands: Fsd, stack: StackSpec, clients: Clients) -> None:
    assert stack.functions is not None
    worker = stack.functions.workers[0].arn
    change = clients.functions.update_function_configuration
    config = clients.functions.get_function_configuration(FunctionName=worker)
    limit, before = config["Timeout"], config["Environment"]["Variables"]
    change(
        FunctionName=worker, MemorySize=640, Timeout=7, Environment={"Variables": before | {"FSD_STACK_BUCKET": "x"}}
    )
    try:
        found = findings(commands)
    finally:
        change(FunctionName=worker, MemorySize=512, Timeout=limit, Environment={"Variables": before})
        settle(clients, worker)
    (text,) = found.pop(f"function {stack.name}-worker-512")
    assert "it has 640 MB, not 512" in text
    assert f"its timeout is 7 s, not {limit}" in text
    assert "its FSD_STACK_BUCKET is 'x'" in text
    assert not found
    gone = replace(stack.functions, coordinator=stack.functions.coordinator + "-gone")
    save_stack(replace(stack, functions=gone), Path("gone.json"))
    found = findings(commands, "gone.json")
    assert "404 ResourceNotFoundException" in found[f"function {stack.name}-coordinator-gone"][0]
    assert "has a different 'functions' than this file" in found["description"][0]
    assert "invocation" in found


def test_other_code(commands: Fsd, stack: StackSpec, clients: Clients) -> None:
    assert stack.functions is not None
    empty = b"PK\x05\x06" + bytes(18)
    coordinator, function = stack.functions.coordinator, stack.functions.workers[1].arn
    with urllib.request.urlopen(clients.functions.get_function(FunctionName=function)["Code"]["Location"]) as answer:
        code = answer.read()
    clients.functions.update_function_code(FunctionName=function, ZipFile=empty)
    try:
        found = findings(commands)
    finally:
        clients.functions.update_function_code(FunctionName=function, ZipFile=code)
        settle(clients, function)
    assert f"{function.rpartition(':')[2]} has different code than {coordinator.rpartition(':')[2]}" in found["code"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"FilterPolicy": '{"to": ["7", "all"]}'}, "misses 1 of 2 messages"),
        ({"FilterPolicy": '{"to": ["0", "1", "2", "all"]}'}, "receives messages for others"),
        (
            {"RawMessageDelivery": "false"},
            "receives messages wrapped in JSON: its subscription needs RawMessageDelivery",
        ),
    ],
    ids=["nothing", "everything", "wrapped"],
)
def test_a_subscription_that_does_not_act(
    commands: Fsd, stack: StackSpec, clients: Clients, change: dict[str, str], message: str
) -> None:
    topic = stack.lanes[1].topic_arns[0]
    arn = next(
        subscription["SubscriptionArn"]
        for subscription in clients.sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
        if subscription["Endpoint"].endswith("-rank1")
    )
    right = {"FilterPolicy": '{"to": ["1", "all"]}', "RawMessageDelivery": "true"}
    try:
        for name, value in change.items():
            clients.sns.set_subscription_attributes(SubscriptionArn=arn, AttributeName=name, AttributeValue=value)
        found = findings(commands)
    finally:
        for name in change:
            clients.sns.set_subscription_attributes(SubscriptionArn=arn, AttributeName=name, AttributeValue=right[name])
    assert list(found) == ["lane 1"]
    assert f"not settled: queue {stack.name}-lane1-rank1 {message}" in found["lane 1"][0]
    assert "fsd stack check --wait" in found["lane 1"][0]
    assert not left_in_queues(clients, stack)


def test_what_is_not_allowed_is_named(commands: Fsd, stack: StackSpec, place: Path) -> None:
    assert stack.endpoint_url is not None
    with FaultProxy(stack.endpoint_url) as proxy:

        def through(url: str) -> str:
            return url.replace(str(stack.endpoint_url), proxy.url)

        lanes = tuple(replace(lane, queue_urls=tuple(map(through, lane.queue_urls))) for lane in stack.lanes)
        save_stack(replace(stack, endpoint_url=proxy.url, lanes=lanes), place / "denied.json")
        denied = {"s3": "AccessDenied", "sns": "AuthorizationError", "sqs": "AccessDenied"}

        def hook(request: Request) -> Fault | None:
            if "/functions/" in request.path or "/account-settings" in request.path:
                return Fault(status=403, body='{"__type": "AccessDeniedException", "Message": "no"}')
            service, _, action = request.kind.partition(".")
            if action in {"GetTopicAttributes", "GetQueueAttributes", "bucket"}:
                return Fault(status=403, code=denied[service])
            if service == "s3" and request.method == "GET" and "/check/" in request.path:
                return Fault(status=403, code="AccessDenied")
            return None

        proxy.hook = hook
        found = findings(commands, "denied.json")
    text = json.dumps(found)
    for action in ("lambda:GetFunctionConfiguration", "lambda:InvokeFunction", "lambda:GetAccountSettings"):
        assert f"the caller's policy must allow {action}" in text
    assert "grant s3:ListBucket (S3 answers 403 instead of 404 for absent keys otherwise)" in found["run bucket"][0]
    assert "must allow s3:ListBucket" in found["resources"][0]


def test_a_lane_in_use_is_left_alone(commands: Fsd, stack: StackSpec, clients: Clients) -> None:
    meter = UsageMeter()
    runs, networks = open_buckets(clients, stack, meter)
    lanes = open_lanes(runs[0], clients, stack, meter=meter)
    lease = lanes.acquire("a" * 32, 0, 60.0, 5.0, [0])
    url = stack.lanes[0].queue_urls[0]
    clients.sqs.send_message(QueueUrl=url, MessageBody="a run's own")
    said = commands("stack", "check", "stack.json", "--json")
    assert said.code == 0
    lane = next(finding for finding in said.json()["findings"] if finding["what"] == "lane 0")
    assert f"in use, therefore not probed (no lane is free after 5 s: lane 0 is held by run {'a' * 32}" in lane["text"]
    assert clients.sqs.receive_message(QueueUrl=url)["Messages"][0]["Body"] == "a run's own"
    shown = commands("runs", "list", "--stack", "stack.json", "--json").json()["lanes"]
    assert [(lane["state"], lane["expired"]) for lane in shown if lane["lane"] == 0] == [("held", False)]
    lanes.release(lease)
    for store in (*runs, networks):
        store.close()


# --- runs -------------------------------------------------------------------------------------------------------------


def test_runs_are_listed_shown_and_cleaned(commands: Fsd, stack: StackSpec, clients: Clients, place: Path) -> None:
    network = fsd.random_network([64, 48, 32], connections=4, seed=1)
    x = np.random.default_rng(0).random((50, 64), np.float32)
    for workers, channel in ((1, "serial"), (P, "object")):
        fsd.push(network, stack=place / "stack.json", workers=workers)
        with fsd.Session(network, channel=channel, workers=workers, stack=place / "stack.json") as session:
            session.infer(x)
    runs, networks = open_buckets(clients, stack, UsageMeter())
    store = runs[0]
    going_on, orphan, local = "a" * 32, "b" * 32, "c" * 32
    listed = commands("runs", "list", "--stack", "stack.json", "--json").json()["runs"]
    status = json.dumps({**listed[0], "results": None, "run": going_on, "state": "running", "ended": None})
    store.put(f"status/{going_on}", status.encode())
    store.put(f"runs/{orphan}/input", b"")
    store.put(f"3/{local}/0/layer-0-0-0", b"")
    # --- list and show
    listed = commands("runs", "list", "--stack", "stack.json", "--json").json()["runs"]
    assert {(run["channel"], run["state"], run["workers"]) for run in listed if run["run"] != going_on} == {
        ("serial", "done", 1),
        ("object", "done", P),
    }
    newest = next(run["run"] for run in listed if run["channel"] == "object" and run["run"] != going_on)
    table = commands("runs", "list", "--stack", "stack.json").stdout
    assert newest[:8] in table
    shown = commands("runs", "show", newest[:10], "--stack", "stack.json", "--json").json()
    assert (shown["run"], len(shown["ranks"]), shown["memory_mb"]) == (newest, P, 512)
    assert shown["usage"]["requests"]["lambda.invoke"] == P
    assert "3 ranks reported" in commands("runs", "show", newest, "--stack", "stack.json").stdout
    for run, message in (("f" * 32, "the stack has no status of run"), ("", "runs begin with ''; give more digits")):
        said = commands("runs", "show", run, "--stack", "stack.json")
        assert said.code == 2
        assert message in said.error()
    # --- clean
    young = commands("runs", "clean", "--older-than", "1h", "--stack", "stack.json", "--json").json()
    assert young["runs"] == []
    gone = commands("runs", "clean", "--all", "--stack", "stack.json", "--json").json()["runs"]
    assert {run["run"] for run in listed if run["run"] != going_on} <= set(gone)
    assert {going_on, orphan, local}.isdisjoint(gone)
    left = {info.key for info in store.list("") if not info.key.startswith("lane")}
    assert left == {f"status/{going_on}", f"runs/{orphan}/input", f"3/{local}/0/layer-0-0-0"}
    named = commands("runs", "clean", going_on, orphan, local, "--stack", "stack.json", "--json").json()
    assert (set(named["runs"]), named["objects"]) == ({going_on, orphan, local}, 3)
    assert not {info.key for info in store.list("") if not info.key.startswith("lane")}
    said = commands("runs", "clean", "d" * 32, "--stack", "stack.json")
    assert (said.code, "the stack has no objects of run" in said.error()) == (2, True)
    for opened in (*runs, networks):
        opened.close()
