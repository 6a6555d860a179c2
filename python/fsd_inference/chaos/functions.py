"""Functions on an emulated stack, which run in this interpreter's environment."""

from __future__ import annotations

import importlib.util
import tempfile
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from fsd_inference.aws.clients import Clients
from fsd_inference.aws.handlers.environment import STACK_KEY
from fsd_inference.aws.stack import save_stack
from fsd_inference.chaos.lambda_zip import code_zip
from fsd_inference.errors import StackError
from fsd_inference.stack_description import FunctionsSpec, StackSpec, WorkerFunction

RUNTIME = "provided.al2023"
_ROLE = "arn:aws:iam::000000000000:role/functions"
_COORDINATOR_MB = 512


def add_functions(
    clients: Clients,
    stack: StackSpec,
    *,
    memory_mb: tuple[int, ...] = (512,),
    timeout_s: int = 120,
    runtime: str = RUNTIME,
) -> StackSpec:
    """Create a coordinator and worker functions on an emulator, and return the description of the stack with them.

    Parameters
    ----------
    clients : Clients
        Clients of the emulator.
    stack : StackSpec
        Without functions; they use the services at its endpoint.
    memory_mb : tuple of int, optional
        Memory of each worker function, in MB.
    timeout_s : int, optional
        Timeout of an invocation, in seconds.
    runtime : str, optional
        Runtime by Lambda's name.

    Raises
    ------
    StackError
        The environment lacks AWS's runtime interface client for Python.
    """
    if importlib.util.find_spec("awslambdaric") is None:
        raise StackError("functions on an emulator need AWS's runtime interface client: pip install awslambdaric")
    url = clients.sqs.create_queue(QueueName=f"{stack.name}-failures")["QueueUrl"]
    arn = clients.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    with tempfile.TemporaryDirectory() as folder:
        code_zip(Path(folder, "code.zip"))
        code = Path(folder, "code.zip").read_bytes()
    variables = {"FSD_STACK_BUCKET": stack.network_bucket, "AWS_ENDPOINT_URL": str(stack.endpoint_url)}

    def make(name: str, handler: str, size: int) -> str:
        made = clients.functions.create_function(
            FunctionName=f"{stack.name}-{name}",
            Runtime=runtime,  # type: ignore[arg-type]
            Handler=f"fsd_inference.aws.handlers.{handler}.handle",
            Role=_ROLE,
            Code={"ZipFile": code},
            MemorySize=size,
            Timeout=timeout_s,
            Environment={"Variables": variables},
        )
        clients.functions.put_function_event_invoke_config(
            FunctionName=f"{stack.name}-{name}",
            MaximumRetryAttempts=0,
            MaximumEventAgeInSeconds=60,
            DestinationConfig={"OnFailure": {"Destination": arn}},
        )
        return made["FunctionArn"]

    coordinator = make("coordinator", "coordinator", _COORDINATOR_MB)
    workers = tuple(WorkerFunction(size, make(f"worker-{size}", "worker", size)) for size in memory_mb)
    for made in (coordinator, *(worker.arn for worker in workers)):
        waiter = clients.functions.get_waiter("function_active_v2")
        waiter.wait(FunctionName=made, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    url = str(stack.endpoint_url) + urlsplit(url).path  # the endpoint may be a proxy's
    whole = replace(stack, functions=FunctionsSpec(coordinator, workers, url, float(timeout_s)))
    with tempfile.TemporaryDirectory() as folder:
        save_stack(replace(whole, emulator=None), Path(folder, "stack.json"))
        body = Path(folder, "stack.json").read_bytes()
    clients.s3.put_object(Bucket=stack.network_bucket, Key=STACK_KEY, Body=body)
    return whole
