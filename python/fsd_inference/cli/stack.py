"""`fsd stack`: the topics, queues and buckets that workers exchange activations through."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from fsd_inference.cli.console import Output, facts
from fsd_inference.cli.options import Json, examples
from fsd_inference.cli.outputs import check_output
from fsd_inference.errors import InputError, SettingError, StackError

if TYPE_CHECKING:
    from fsd_inference.records import StackSpec

app = typer.Typer(name="stack", help="Topics, queues and buckets: up, down, show.")

_DEFAULT = Path("stack.json")

StackFile = Annotated[Path, typer.Argument(help="The file that `fsd stack up` wrote.", metavar="[STACK]")]


@app.command(epilog=examples("fsd stack up --lanes 2 --ranks 8 -o stack.json"))
def up(
    lanes: Annotated[int, typer.Option("--lanes", min=1, help="Runs over queues that can go on at once.")] = 1,
    ranks: Annotated[int, typer.Option("--ranks", min=1, help="The most workers of a run over queues.")] = 8,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")] = _DEFAULT,
    endpoint_url: Annotated[
        str | None,
        typer.Option(
            "--endpoint-url", help="Of a running emulator. Default: one is started, and runs on until `down`."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Start an emulated AWS on this machine, make a stack's resources there, and write stack.json."""
    out = Output(as_json)
    check_output(output)
    if output.exists():
        raise InputError(f"{output} is there already; take that stack down first: fsd stack down {output}")
    if endpoint_url is not None and not (
        endpoint_url.startswith(("http://", "https://")) and urlsplit(endpoint_url).hostname
    ):
        raise SettingError(f"--endpoint-url must be an http(s) URL, not {endpoint_url!r}")
    from fsd_inference.aws.local import bring_up, take_down  # noqa: PLC0415
    from fsd_inference.aws.provision import StackSettings  # noqa: PLC0415
    from fsd_inference.aws.stack import save_stack  # noqa: PLC0415

    with out.progress() as tasks:
        tasks.begin("making topics, queues and buckets", None)
        # Our own emulator purges at once; what else answers at an URL may take as long as AWS.
        settle_s = 0.0 if endpoint_url is None else 60.0
        stack = bring_up(
            StackSettings("fsd", lanes=lanes, ranks=ranks, purge_settle_s=settle_s), endpoint_url=endpoint_url
        )
        try:
            save_stack(stack, output)
        except BaseException:
            take_down(stack)
            raise
    out.result(_record(stack, output), facts(_rows(stack, output)))


@app.command(epilog=examples("fsd stack down stack.json"))
def down(path: StackFile = _DEFAULT, as_json: Json = False) -> None:
    """Delete a stack's resources, stop the emulator that was started for it, and remove stack.json."""
    from fsd_inference.aws.local import take_down  # noqa: PLC0415
    from fsd_inference.aws.stack import load_stack  # noqa: PLC0415

    out = Output(as_json)
    stack = load_stack(path)
    take_down(stack)
    path.unlink()
    out.result({"path": str(path), "name": stack.name, "deleted": True}, f"{stack.name} is taken down")


@app.command(epilog=examples("fsd stack show stack.json"))
def show(path: StackFile = _DEFAULT, as_json: Json = False) -> None:
    """Say what a stack consists of, and whether it is all there."""
    from fsd_inference.aws.check import check_stack  # noqa: PLC0415
    from fsd_inference.aws.clients import Clients  # noqa: PLC0415
    from fsd_inference.aws.stack import load_stack  # noqa: PLC0415

    stack = load_stack(path)
    clients = Clients.of_stack(stack)
    problem = None
    try:
        check_stack(clients, stack)
    except StackError as error:
        problem = str(error)
    finally:
        clients.close()
    rows = [*_rows(stack, path), ("state", problem or "all there")]
    Output(as_json).result({**_record(stack, path), "problem": problem}, facts(rows))


def _record(stack: StackSpec, path: Path) -> dict[str, Any]:
    # The token by which the emulator's process is known again is for the file alone.
    emulator = stack.emulator and {"endpoint_url": stack.emulator.endpoint_url, "pid": stack.emulator.pid}
    return {"path": str(path), **asdict(stack), "ranks": stack.ranks, "emulator": emulator}


def _rows(stack: StackSpec, path: Path) -> list[tuple[str, object]]:
    emulator = stack.emulator
    started = f" (emulator, process {emulator.pid}; stop it with: fsd stack down {path})" if emulator else ""
    topics = sum(len(lane.topic_arns) for lane in stack.lanes)
    return [
        ("stack", f"{stack.name} ({path})"),
        ("endpoint", f"{stack.endpoint_url or 'AWS'}, {stack.region}{started}"),
        (
            "lanes",
            f"{len(stack.lanes)} of {stack.ranks} ranks: {topics} topics, {len(stack.lanes) * stack.ranks} queues",
        ),
        ("buckets", ", ".join((*stack.run_buckets, stack.network_bucket))),
        ("messages", f"at most {stack.message_bytes // 1024} KiB"),
        ("runs", f"at most {stack.longest_run_s:g} s"),
    ]
