"""A stack with functions on an emulator, created with boto3, which is faster than Terraform."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import boto3

from fsd_inference.aws.emulator import start_emulator, stop_emulator
from fsd_inference.aws.handlers.code import code_digest
from fsd_inference.aws.handlers.environment import STACK_KEY
from fsd_inference.aws.local import bring_up
from fsd_inference.aws.provision import StackSettings
from fsd_inference.aws.stack import save_stack
from fsd_inference.stack_description import FunctionsSpec, StackSpec, WorkerFunction
from tests.support.lambda_zip import code_zip

ROLE = "arn:aws:iam::000000000000:role/functions"


@contextmanager
def functions_stack(
    folder: Path,
    *,
    ranks: int = 6,
    lanes: int = 2,
    memory_mb: tuple[int, ...] = (512,),
    timeout_s: int = 120,
    runtime: str = "provided.al2023",
    purge_settle_s: float = 0.0,
) -> Iterator[StackSpec]:
    """Create a stack with coordinator and worker functions, described in `folder`/stack.json, for a `with` block."""
    emulator = start_emulator(tied=True)
    try:
        stack = bring_up(
            StackSettings("fsd-test", lanes=lanes, ranks=ranks, purge_settle_s=purge_settle_s),
            endpoint_url=emulator.endpoint_url,
        )
        stack = add_functions(replace(stack, emulator=emulator), memory_mb, timeout_s, runtime)
        save_stack(stack, folder / "stack.json")
        yield stack
    finally:
        stop_emulator(emulator)


def add_functions(stack: StackSpec, memory_mb: tuple[int, ...], timeout_s: int, runtime: str) -> StackSpec:
    """Create a coordinator, a worker function for each memory size (MB), and their on-failure destination."""
    session = boto3.Session("test", "test", region_name=stack.region)
    sqs = session.client("sqs", endpoint_url=stack.endpoint_url)
    functions = session.client("lambda", endpoint_url=stack.endpoint_url)
    url = sqs.create_queue(QueueName=f"{stack.name}-failures")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    with tempfile.TemporaryDirectory() as folder:
        code_zip(Path(folder, "code.zip"))
        code = Path(folder, "code.zip").read_bytes()
    variables = {"FSD_STACK_BUCKET": stack.network_bucket, "AWS_ENDPOINT_URL": str(stack.endpoint_url)}

    def make(name: str, handler: str, size: int) -> str:
        made = functions.create_function(
            FunctionName=f"{stack.name}-{name}",
            Runtime=runtime,  # type: ignore[arg-type]
            Handler=f"fsd_inference.aws.handlers.{handler}.handle",
            Role=ROLE,
            Code={"ZipFile": code},
            MemorySize=size,
            Timeout=timeout_s,
            Environment={"Variables": variables},
        )
        functions.put_function_event_invoke_config(
            FunctionName=f"{stack.name}-{name}",
            MaximumRetryAttempts=0,
            MaximumEventAgeInSeconds=60,
            DestinationConfig={"OnFailure": {"Destination": arn}},
        )
        return made["FunctionArn"]

    coordinator = make("coordinator", "coordinator", 512)
    workers = tuple(WorkerFunction(size, make(f"worker-{size}", "worker", size)) for size in memory_mb)
    for made in (coordinator, *(worker.arn for worker in workers)):
        functions.get_waiter("function_active_v2").wait(FunctionName=made, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    whole = replace(stack, functions=FunctionsSpec(coordinator, workers, url, float(timeout_s)))
    with tempfile.TemporaryDirectory() as folder:
        save_stack(replace(whole, emulator=None), Path(folder, "stack.json"))
        body = Path(folder, "stack.json").read_bytes()
    session.client("s3", endpoint_url=stack.endpoint_url).put_object(
        Bucket=stack.network_bucket, Key=STACK_KEY, Body=body
    )
    return whole


def deployed_code(folder: Path) -> str:
    """Return the digest of the functions' code, computed from the unpacked zip."""
    code_zip(folder / "code.zip")
    with ZipFile(folder / "code.zip") as archive:
        archive.extractall(folder / "code")
    return code_digest(folder / "code" / "fsd_inference")
