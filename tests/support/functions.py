"""A stack with functions on an emulator, created with boto3, which is faster than Terraform."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

from fsd_inference.aws.clients import Clients
from fsd_inference.aws.emulator import start_emulator, stop_emulator
from fsd_inference.aws.handlers.code import code_digest
from fsd_inference.aws.local import bring_up
from fsd_inference.aws.provision import StackSettings
from fsd_inference.aws.stack import save_stack
from fsd_inference.chaos.functions import RUNTIME, add_functions
from fsd_inference.chaos.lambda_zip import code_zip
from fsd_inference.stack_description import StackSpec


@contextmanager
def functions_stack(
    folder: Path,
    *,
    ranks: int = 6,
    lanes: int = 2,
    memory_mb: tuple[int, ...] = (512,),
    timeout_s: int = 120,
    runtime: str = RUNTIME,
    purge_settle_s: float = 0.0,
) -> Iterator[StackSpec]:
    """Create a stack with coordinator and worker functions, described in `folder`/stack.json, for a `with` block."""
    emulator = start_emulator(tied=True)
    try:
        stack = bring_up(
            StackSettings("fsd-test", lanes=lanes, ranks=ranks, purge_settle_s=purge_settle_s),
            endpoint_url=emulator.endpoint_url,
        )
        clients = Clients.of_stack(stack)
        stack = add_functions(
            clients, replace(stack, emulator=emulator), memory_mb=memory_mb, timeout_s=timeout_s, runtime=runtime
        )
        clients.close()
        save_stack(stack, folder / "stack.json")
        yield stack
    finally:
        stop_emulator(emulator)


def deployed_code(folder: Path) -> str:
    """Return the digest of the functions' code, computed from the unpacked zip."""
    code_zip(folder / "code.zip")
    with ZipFile(folder / "code.zip") as archive:
        archive.extractall(folder / "code")
    return code_digest(folder / "code" / "fsd_inference")
