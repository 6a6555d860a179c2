"""`fsd stack`: create, inspect, check and delete the AWS resources that runs use."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fsd_inference.cli.console import Output, facts
from fsd_inference.cli.options import Json, Profile, examples, use_profile
from fsd_inference.cli.outputs import check_output
from fsd_inference.endpoints import check_endpoint, is_loopback, is_plain
from fsd_inference.errors import InputError, SettingError, StackError

if TYPE_CHECKING:
    from fsd_inference.stack_description import StackSpec

app = typer.Typer(name="stack", help="Manage the AWS resources of runs: up, down, show, check.")

_DEFAULT = Path("stack.json")

StackFile = Annotated[
    Path, typer.Argument(help="The stack.json of the stack, as written by `fsd stack up`.", metavar="[STACK]")
]


@app.command(epilog=examples("fsd stack up --lanes 2 --ranks 8 -o stack.json"))
def up(
    lanes: Annotated[int, typer.Option("--lanes", min=1, help="Maximum number of concurrent runs over queues.")] = 1,
    ranks: Annotated[int, typer.Option("--ranks", min=1, help="Maximum number of workers of a run over queues.")] = 8,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")] = _DEFAULT,
    endpoint_url: Annotated[
        str | None,
        typer.Option(
            "--endpoint-url", help="Endpoint of a running emulator. Default: start one, which runs until `down`."
        ),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option("--region", help="AWS region, for --endpoint-url. Default: that of the AWS configuration."),
    ] = None,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Create a stack in an emulated AWS on this machine, and write stack.json."""
    out = Output(as_json)
    use_profile(profile)
    check_output(output)
    if output.exists():
        raise InputError(f"{output} already exists; take that stack down first: fsd stack down {output}")
    if endpoint_url is not None:
        try:
            check_endpoint(endpoint_url)
        except SettingError as error:
            raise SettingError(f"--endpoint-url must be an http(s) URL: {error}") from error
        if is_plain(endpoint_url) and not is_loopback(endpoint_url):
            out.note(
                f"requests to {endpoint_url} are not encrypted (no secret keys are sent): use https on a shared network"
            )
    from fsd_inference.aws.local import bring_up, take_down  # noqa: PLC0415
    from fsd_inference.aws.provision import StackSettings  # noqa: PLC0415
    from fsd_inference.aws.stack import save_stack  # noqa: PLC0415

    with out.progress() as tasks:
        tasks.begin("creating topics, queues and buckets", None)
        # The emulator that we start purges at once; another service at a URL may take as long as AWS.
        settle_s = 0.0 if endpoint_url is None else 60.0
        settings = StackSettings("fsd", lanes=lanes, ranks=ranks, purge_settle_s=settle_s)
        stack = bring_up(settings, endpoint_url=endpoint_url, region=region)
        try:
            save_stack(stack, output)
        except BaseException:
            take_down(stack)
            raise
    out.result(_record(stack, output), facts(_rows(stack, output)))


@app.command(epilog=examples("fsd stack down stack.json"))
def down(path: StackFile = _DEFAULT, profile: Profile = None, as_json: Json = False) -> None:
    """Delete a stack's resources, stop the emulator that was started for it, and remove stack.json."""
    from fsd_inference.aws.local import take_down  # noqa: PLC0415
    from fsd_inference.aws.stack import load_stack  # noqa: PLC0415

    use_profile(profile)
    out = Output(as_json)
    stack = load_stack(path)
    take_down(stack)
    path.resolve().unlink()  # the file itself, not a link to it: `up` would write through the link
    out.result({"path": str(path), "name": stack.name, "deleted": True}, f"{stack.name} was taken down")


@app.command(epilog=examples("fsd stack show stack.json"))
def show(path: StackFile = _DEFAULT, profile: Profile = None, as_json: Json = False) -> None:
    """Show the resources of a stack, and whether all of them exist."""
    from fsd_inference.aws.check import check_stack  # noqa: PLC0415
    from fsd_inference.aws.clients import Clients  # noqa: PLC0415
    from fsd_inference.aws.stack import load_stack  # noqa: PLC0415

    use_profile(profile)
    stack = load_stack(path)
    clients = Clients.of_stack(stack)
    problem = None
    try:
        check_stack(clients, stack)
    except StackError as error:
        problem = str(error)
    finally:
        clients.close()
    rows = [*_rows(stack, path), ("state", problem or "all resources exist")]
    Output(as_json).result({**_record(stack, path), "problem": problem}, facts(rows))


@app.command(epilog=examples("fsd stack check stack.json", "fsd stack check --wait --wake stack.json"))
def check(
    path: StackFile = _DEFAULT,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait", help="Wait until messages reach only the right queues, which takes up to 15 minutes on AWS."
        ),
    ] = False,
    wake: Annotated[
        bool,
        typer.Option("--wake", help="First wake functions that were unused for weeks, which takes up to 3 minutes."),
    ] = False,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Check whether a stack is ready for runs: resources, functions, permissions, concurrency, message delivery."""
    from fsd_inference.aws.clients import Clients  # noqa: PLC0415
    from fsd_inference.aws.preflight import preflight  # noqa: PLC0415
    from fsd_inference.aws.stack import load_stack  # noqa: PLC0415

    use_profile(profile)
    out, stack = Output(as_json), load_stack(path)
    findings = []
    if wake and stack.functions is None:
        raise SettingError(f"--wake applies to stacks with functions, and {stack.name} has none")
    clients = Clients.of_stack(stack)
    try:
        for finding in preflight(clients, stack, wait=wait, wake=wake):
            findings.append(finding)
            out.note(f"{finding.state:<8} {finding.what}: {finding.text}")
    finally:
        clients.close()
    bad = [finding for finding in findings if finding.state != "ok"]
    record = {"path": str(path), "ready": not bad, "findings": [asdict(finding) for finding in findings]}
    out.result(record, f"{stack.name} is ready" if not bad else f"{stack.name}: {len(bad)} problems, listed above")
    if bad:
        raise typer.Exit(1)


def _record(stack: StackSpec, path: Path) -> dict[str, Any]:
    # The token that identifies the emulator's process stays in the file.
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
