"""The stack.json format: round trips, and one-line errors for invalid files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fsd_inference.aws.stack import load_stack, save_stack
from fsd_inference.errors import FileFormatError, InputError
from fsd_inference.stack_description import (
    EmulatorInfo,
    FunctionsSpec,
    LaneSpec,
    ManagedInstances,
    StackSpec,
    WorkerFunction,
    function_name,
)


def lane(number: int, ranks: int) -> LaneSpec:
    return LaneSpec(
        tuple(f"arn:aws:sns:us-east-1:000000000000:s-lane{number}-block{b}" for b in range((ranks + 99) // 100)),
        tuple(f"http://127.0.0.1:1234/000000000000/s-lane{number}-rank{r}" for r in range(ranks)),
    )


FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:s-"

STACK = StackSpec(
    name="s",
    endpoint_url="http://127.0.0.1:1234",
    region="us-east-1",
    lanes=(lane(0, 101), lane(1, 101)),
    run_buckets=("s-runs-0", "s-runs-1"),
    network_bucket="s-networks",
    purge_settle_s=0.5,
    functions=FunctionsSpec(
        coordinator=f"{FUNCTION}coordinator",
        workers=(WorkerFunction(512, f"{FUNCTION}worker-512"), WorkerFunction(1769, f"{FUNCTION}worker-1769")),
        failures_queue_url="http://127.0.0.1:1234/000000000000/s-failures",
        timeout_s=900.0,
    ),
    emulator=EmulatorInfo("http://127.0.0.1:1234", 4321, "0123456789abcdef" * 2, "/tmp/x"),
)


MANAGED = WorkerFunction(32_768, f"{FUNCTION}worker-32768:$LATEST.PUBLISHED", ManagedInstances(3, 16))


def with_managed(stack: StackSpec) -> StackSpec:
    assert stack.functions is not None
    workers = (*stack.functions.workers, MANAGED)
    return replace(stack, name="managed", functions=replace(stack.functions, workers=workers))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stack.json"


@pytest.mark.parametrize(
    "stack",
    [
        STACK,
        StackSpec("n", None, "eu-west-1", (lane(0, 1),), ("a",), "b"),
        StackSpec("raised", None, "eu-west-1", (lane(0, 1),), ("a",), "b", publish_quota=20_000),
        StackSpec("objects-only", None, "eu-west-1", (), ("a",), "b"),
        with_managed(STACK),
    ],
    ids=lambda stack: stack.name,
)
def test_what_is_written_comes_back(stack: StackSpec, path: Path) -> None:
    save_stack(stack, path)
    assert load_stack(path) == stack
    assert [file.name for file in path.parent.iterdir()] == ["stack.json"]


def test_a_file_of_before_there_was_a_publishing_quota_has_the_default(path: Path) -> None:
    save_stack(replace(STACK, endpoint_url=None, region="eu-north-1"), path)
    value = json.loads(path.read_bytes())
    del value["publish_quota"]
    path.write_text(json.dumps(value))
    assert load_stack(path).publish_quota is None


def test_worker_functions_of_before_there_were_managed_instances_are_common_ones(path: Path) -> None:
    save_stack(STACK, path)
    value = json.loads(path.read_bytes())
    for worker in value["functions"]["workers"]:
        del worker["managed"]
    path.write_text(json.dumps(value))
    assert load_stack(path) == STACK


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"environments": 0}, "'functions.workers[2].managed.environments' must be at least 1, not 0"),
        ({"vcpus": 0}, "'functions.workers[2].managed.vcpus' must be at least 1, not 0"),
        ({"vcpus": 17}, "'functions.workers[2].managed.vcpus' must be at most 16, not 17"),
        ({"instances": 3}, "'functions.workers[2].managed.instances' is an unknown field"),
    ],
)
def test_managed_instances_that_cannot_be(change: dict[str, int], message: str, path: Path) -> None:
    def make(value: dict[str, Any]) -> None:
        value["functions"]["workers"][2]["managed"].update(change)

    assert wrong(make, path, with_managed(STACK)) == message


def test_a_function_is_named_without_its_version() -> None:
    assert function_name(MANAGED.arn) == "s-worker-32768"
    assert function_name(f"{FUNCTION}coordinator") == "s-coordinator"


@pytest.mark.parametrize(
    ("region", "quota"),
    [
        ("us-east-1", 30_000),
        ("us-west-2", 9_000),
        ("eu-west-1", 9_000),
        ("eu-central-1", 1_500),
        ("us-east-2", 1_500),
        ("ap-northeast-1", 1_500),
        ("eu-north-1", 300),
        ("ap-northeast-3", 300),
        ("xx-new-1", 300),
    ],
)
def test_a_stack_may_publish_what_its_region_allows(region: str, quota: int) -> None:
    stack = replace(STACK, endpoint_url=None, region=region)
    assert stack.publish_per_s == quota
    assert replace(stack, publish_quota=quota * 2).publish_per_s == quota * 2


def test_an_emulator_has_no_publishing_quota_unless_it_is_set() -> None:
    assert STACK.publish_per_s is None
    assert replace(STACK, publish_quota=300).publish_per_s == 300


def test_the_account_is_that_of_topics_or_functions() -> None:
    assert STACK.account == "000000000000"
    assert replace(STACK, lanes=()).account == "000000000000"
    assert replace(STACK, functions=None).account == "000000000000"
    assert replace(STACK, lanes=(), functions=None).account is None


def wrong(change: Callable[[dict[str, Any]], object], path: Path, stack: StackSpec = STACK) -> str:
    """Write a stack.json with one change; return the message about it."""
    save_stack(stack, path)
    value = json.loads(path.read_bytes())
    change(value)
    path.write_text(json.dumps(value))
    with pytest.raises(FileFormatError) as caught:
        load_stack(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("name", ["format", "version", "lanes", "region", "functions", "emulator", "run_buckets"])
def test_a_missing_field(name: str, path: Path) -> None:
    assert wrong(lambda value: value.pop(name), path) == f"'{name}' is missing"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "'format' must be 'fsd-stack'"),
        ({"version": 3}, "'version' is 3, and this program reads 2: create the stack again"),
        ({"version": "1"}, "'version' must be a whole number, not '1'"),
        ({"version": True}, "'version' must be a whole number, not True"),
        ({"colour": "red"}, "'colour' is an unknown field"),
        ({"region": ""}, "'region' must be a string, not ''"),
        ({"region": None}, "'region' must be a string, not None"),
        ({"endpoint_url": "ftp://x"}, "'endpoint_url': 'ftp://x' is not an http(s) URL"),
        ({"run_buckets": []}, "a stack needs at least one bucket in 'run_buckets'"),
        ({"run_buckets": ["a", "b--use1-az4--x-s3"]}, "b--use1-az4--x-s3 is a directory bucket (S3 Express One Zone)"),
        ({"network_bucket": "b--use1-az4--x-s3"}, "b--use1-az4--x-s3 is a directory bucket (S3 Express One Zone)"),
        ({"lanes": [3]}, "lanes[0] must be a JSON object"),
        ({"lanes": [{"topic_arns": [], "queue_urls": []}]}, "'lanes[0].queue_urls' must have as many queues as lane 0"),
        ({"run_buckets": ["a", 3]}, "'run_buckets' must hold strings only"),
        ({"publish_quota": 0}, "'publish_quota' must be at least 1 message a second, not 0"),
        ({"publish_quota": 0.5}, "'publish_quota' must be a whole number, not 0.5"),
        ({"message_bytes": 12}, "'message_bytes' must be from 2048 to 1048576, not 12"),
        ({"purge_settle_s": -1}, "'purge_settle_s' must be a number of seconds, not -1"),
        ({"longest_run_s": float("inf")}, "'longest_run_s' must be a number of seconds, not inf"),
        ({"longest_run_s": "long"}, "'longest_run_s' must be a number, not 'long'"),
        ({"emulator": {"pid": 1}}, "'emulator.endpoint_url' is missing"),
        (
            {"emulator": {"endpoint_url": "http://127.0.0.1:1", "pid": 1, "token": "0" * 16, "directory": "/"}},
            "'emulator' names no process that was started for a stack",
        ),
    ],
    ids=str,
)
def test_a_wrong_field(change: dict[str, object], message: str, path: Path) -> None:
    assert wrong(lambda value: value.update(change), path).startswith(message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lanes: lanes[1]["queue_urls"].pop(), "'lanes[1].queue_urls' must have as many queues as lane 0"),
        (lambda lanes: lanes[0]["topic_arns"].pop(), "'lanes[0].topic_arns' has 1 topics, but 101 ranks need 2"),
        (lambda lanes: lanes[0].update(extra=1), "'lanes[0].extra' is an unknown field"),
        (lambda lanes: lanes.__setitem__(1, lanes[0]), "'topic_arns' of the lanes must all differ"),
        (lambda lanes: lanes[1].update(queue_urls=lanes[0]["queue_urls"]), "'queue_urls' of the lanes must all differ"),
        (lambda lanes: lanes[0]["queue_urls"].__setitem__(3, "queue"), "'lanes[0].queue_urls': 'queue' is not"),
        (lambda lanes: lanes[0]["topic_arns"].__setitem__(0, "arn:aws:sqs:a:b:c"), "'lanes[0].topic_arns': 'arn:aws"),
    ],
)
def test_a_wrong_lane(change: Callable[[Any], object], message: str, path: Path) -> None:
    assert wrong(lambda value: change(value["lanes"]), path).startswith(message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coordinator": "s-coordinator"}, "'functions': 's-coordinator' is not the ARN of a Lambda function"),
        ({"workers": []}, "'functions.workers' must list at least one size"),
        ({"workers": [{"memory_mb": 1}]}, "'functions.workers[0].arn' is missing"),
        (
            {"workers": [{"memory_mb": 1769, "arn": FUNCTION}, {"memory_mb": 512, "arn": FUNCTION}]},
            "'functions.workers'",
        ),
        ({"failures_queue_url": "s-failures"}, "'functions.failures_queue_url': 's-failures' is not an http(s) URL"),
        ({"timeout_s": "900"}, "'functions.timeout_s' must be a number"),
        ({"image": "x"}, "'functions.image' is an unknown field"),
    ],
    ids=str,
)
def test_wrong_functions(change: dict[str, object], message: str, path: Path) -> None:
    assert wrong(lambda value: value["functions"].update(change), path).startswith(message)


def test_other_files(path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"cannot read .*: No such file"):
        load_stack(path)
    for data, message in ((b"", "not JSON"), (b"\xff\xfe", "not JSON"), (b"[]", "must be a JSON object")):
        path.write_bytes(data)
        with pytest.raises(FileFormatError, match=message):
            load_stack(path)
    with pytest.raises(FileFormatError, match="cannot read"):
        load_stack(path.parent)
    with pytest.raises(InputError, match="cannot be written"):
        save_stack(STACK, path.parent / "none" / "stack.json")
