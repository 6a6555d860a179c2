"""The stack.json file, which describes a stack's deployed resources; `fsd stack up` or Terraform writes it."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict
from pathlib import Path

from fsd_inference.atomic import write_text
from fsd_inference.endpoints import check_endpoint
from fsd_inference.errors import FileFormatError, SettingError
from fsd_inference.fields import Fields, parse_json
from fsd_inference.limits import (
    DIRECTORY_BUCKET,
    LARGEST_MANAGED_VCPUS,
    LARGEST_MESSAGE_BYTES,
    LEAST_MESSAGE_BYTES,
    RANKS_PER_TOPIC,
)
from fsd_inference.stack_description import (
    EmulatorInfo,
    FunctionsSpec,
    LaneSpec,
    ManagedInstances,
    StackSpec,
    WorkerFunction,
)

_FORMAT = "fsd-stack"
_VERSION = 2


def save_stack(stack: StackSpec, path: Path) -> None:
    """Write `stack` to the file `path` atomically; raise `InputError` or `OutputError` if that fails."""
    write_text(path, json.dumps({"format": _FORMAT, "version": _VERSION, **asdict(stack)}, indent=2) + "\n")


def load_stack(path: Path) -> StackSpec:
    """Read and validate a stack.json file.

    Raises
    ------
    FileFormatError
        The file cannot be read, has another format or version, or has missing, unknown or invalid fields.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileFormatError(f"cannot read {path}: {error.strerror}") from error
    return parse_json(data, str(path), parse_stack)


def parse_stack(value: object) -> StackSpec:
    """Parse and validate the JSON value of a stack.json; raise a `FileFormatError` that names the invalid field."""
    top = Fields(value, "", "the file")
    if top.take("format", str) != _FORMAT:
        raise FileFormatError(f"'format' must be {_FORMAT!r}")
    version = top.take("version", int)
    if version != _VERSION:
        raise FileFormatError(f"'version' is {version}, and this program reads {_VERSION}: create the stack again")
    emulator = top.take_optional("emulator", dict)
    functions = top.take_optional("functions", dict)
    stack = StackSpec(
        name=top.take("name", str),
        endpoint_url=top.take_optional("endpoint_url", str),
        region=top.take("region", str),
        lanes=tuple(_lane(lane, f"lanes[{index}].") for index, lane in enumerate(top.take("lanes", list))),
        run_buckets=top.take_strings("run_buckets"),
        network_bucket=top.take("network_bucket", str),
        message_bytes=top.take("message_bytes", int),
        longest_run_s=top.take_number("longest_run_s"),
        purge_settle_s=top.take_number("purge_settle_s"),
        publish_quota=top.take_if("publish_quota", int),
        functions=None if functions is None else _functions(functions),
        emulator=None if emulator is None else _emulator(emulator),
    )
    top.end()
    _check(stack)
    return stack


def _lane(value: object, where: str) -> LaneSpec:
    fields = Fields(value, where)
    lane = LaneSpec(fields.take_strings("topic_arns"), fields.take_strings("queue_urls"))
    fields.end()
    return lane


def _functions(value: object) -> FunctionsSpec:
    fields = Fields(value, "functions.")
    found = FunctionsSpec(
        coordinator=fields.take("coordinator", str),
        workers=tuple(
            _worker(worker, f"functions.workers[{index}].") for index, worker in enumerate(fields.take("workers", list))
        ),
        failures_queue_url=fields.take("failures_queue_url", str),
        timeout_s=fields.take_number("timeout_s"),
    )
    fields.end()
    sizes = [worker.memory_mb for worker in found.workers]
    if not sizes or sorted(set(sizes)) != sizes:
        raise FileFormatError("'functions.workers' must list at least one size, in ascending order without duplicates")
    for arn in (found.coordinator, *(worker.arn for worker in found.workers)):
        if arn.count(":") < 6 or not arn.startswith("arn:") or arn.split(":")[2] != "lambda":
            raise FileFormatError(f"'functions': {arn!r} is not the ARN of a Lambda function")
    _check_url("functions.failures_queue_url", found.failures_queue_url)
    return found


def _worker(value: object, where: str) -> WorkerFunction:
    fields = Fields(value, where)
    managed = fields.take_if("managed", dict)
    worker = WorkerFunction(
        fields.take("memory_mb", int),
        fields.take("arn", str),
        None if managed is None else _managed(managed, f"{where}managed."),
    )
    fields.end()
    return worker


def _managed(value: object, where: str) -> ManagedInstances:
    fields = Fields(value, where)
    managed = ManagedInstances(
        fields.take_count("environments", least=1), fields.take_count("vcpus", 1, LARGEST_MANAGED_VCPUS)
    )
    fields.end()
    return managed


def _emulator(value: object) -> EmulatorInfo:
    fields = Fields(value, "emulator.")
    found = EmulatorInfo(
        fields.take("endpoint_url", str),
        fields.take("pid", int),
        fields.take("token", str),
        fields.take("directory", str),
    )
    fields.end()
    _check_url("emulator.endpoint_url", found.endpoint_url)
    if found.pid <= 1 or not re.fullmatch("[0-9a-f]{32}", found.token) or not Path(found.directory).is_absolute():
        raise FileFormatError("'emulator' names no process that was started for a stack")
    return found


def _check(stack: StackSpec) -> None:
    if stack.endpoint_url is not None:
        _check_url("endpoint_url", stack.endpoint_url)
    if not stack.run_buckets:
        raise FileFormatError("a stack needs at least one bucket in 'run_buckets'")
    for bucket in (*stack.run_buckets, stack.network_bucket):
        if bucket.endswith(DIRECTORY_BUCKET):
            raise FileFormatError(
                f"{bucket} is a directory bucket (S3 Express One Zone), which stacks cannot use: apply the stack's "
                "Terraform module again, which makes general purpose buckets"
            )
    for index, lane in enumerate(stack.lanes):
        _check_lane(lane, stack.ranks, f"lanes[{index}].")
    for what in ("topic_arns", "queue_urls"):
        names = [name for lane in stack.lanes for name in getattr(lane, what)]
        if len(set(names)) != len(names):
            raise FileFormatError(f"'{what}' of the lanes must all differ: a queue belongs to one rank of one lane")
    if stack.publish_quota is not None and stack.publish_quota < 1:
        raise FileFormatError(f"'publish_quota' must be at least 1 message a second, not {stack.publish_quota}")
    least, most = LEAST_MESSAGE_BYTES, LARGEST_MESSAGE_BYTES
    if not least <= stack.message_bytes <= most:
        raise FileFormatError(f"'message_bytes' must be from {least} to {most}, not {stack.message_bytes}")


def _check_lane(lane: LaneSpec, ranks: int, where: str) -> None:
    if not lane.queue_urls or len(lane.queue_urls) != ranks:
        raise FileFormatError(f"'{where}queue_urls' must have as many queues as lane 0, and at least one")
    blocks = math.ceil(ranks / RANKS_PER_TOPIC)
    if len(lane.topic_arns) != blocks:
        raise FileFormatError(
            f"'{where}topic_arns' has {len(lane.topic_arns)} topics, but {ranks} ranks need {blocks} "
            f"(one for {RANKS_PER_TOPIC} ranks)"
        )
    for url in lane.queue_urls:
        _check_url(f"{where}queue_urls", url)
    for arn in lane.topic_arns:
        if arn.count(":") != 5 or not arn.startswith("arn:") or arn.split(":")[2] != "sns":
            raise FileFormatError(f"'{where}topic_arns': {arn!r} is not the ARN of an SNS topic")


def _check_url(name: str, url: str) -> None:
    try:
        check_endpoint(url)
    except SettingError as error:
        raise FileFormatError(f"'{name}': {error}") from error
