"""`fsd stack`: the topics, queues and buckets that workers exchange activations through."""

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

app = typer.Typer(name="stack", help="Topics, queues, buckets and functions: up, down, show, check.")

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
    region: Annotated[
        str | None,
        typer.Option("--region", help="AWS region, for --endpoint-url. Default: that of your configuration."),
    ] = None,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Start an emulated AWS on this machine, make a stack's resources there, and write stack.json."""
    out = Output(as_json)
    use_profile(profile)
    check_output(output)
    if output.exists():
        raise InputError(f"{output} is there already; take that stack down first: fsd stack down {output}")
    if endpoint_url is not None:
        try:
            check_endpoint(endpoint_url)
        except SettingError as error:
            raise SettingError(f"--endpoint-url must be an http(s) URL: {error}") from error
        if is_plain(endpoint_url) and not is_loopback(endpoint_url):
            out.note(f"what is sent to {endpoint_url}, keys apart, is not encrypted: use https where others listen")
    from fsd_inference.aws.local import bring_up, take_down  # noqa: PLC0415
    from fsd_inference.aws.provision import StackSettings  # noqa: PLC0415
    from fsd_inference.aws.stack import save_stack  # noqa: PLC0415

    with out.progress() as tasks:
        tasks.begin("making topics, queues and buckets", None)
        # Our own emulator purges at once; what else answers at an URL may take as long as AWS.
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
    path.resolve().unlink()  # not a link to it, which `up` would write through again
    out.result({"path": str(path), "name": stack.name, "deleted": True}, f"{stack.name} is taken down")


@app.command(epilog=examples("fsd stack show stack.json"))
def show(path: StackFile = _DEFAULT, profile: Profile = None, as_json: Json = False) -> None:
    """Say what a stack consists of, and whether it is all there."""
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
    rows = [*_rows(stack, path), ("state", problem or "all there")]
    Output(as_json).result({**_record(stack, path), "problem": problem}, facts(rows))


@app.command(epilog=examples("fsd stack check stack.json", "fsd stack check --wait stack.json"))
def check(
    path: StackFile = _DEFAULT,
    wait: Annotated[
        bool, typer.Option("--wait", help="Until messages reach the right queues alone: up to 15 minutes on AWS.")
    ] = False,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Say whether runs can work: resources, functions, permissions, concurrency, and where messages arrive."""
    from fsd_inference.aws.clients import Clients  # noqa: PLC0415
    from fsd_inference.aws.preflight import preflight  # noqa: PLC0415
    from fsd_inference.aws.stack import load_stack  # noqa: PLC0415

    use_profile(profile)
    out, stack = Output(as_json), load_stack(path)
    clients = Clients.of_stack(stack)
    findings = []
    try:
        for finding in preflight(clients, stack, wait=wait):
            findings.append(finding)
            out.note(f"{finding.state:<8} {finding.what}: {finding.text}")
    finally:
        clients.close()
    bad = [finding for finding in findings if finding.state != "ok"]
    record = {"path": str(path), "ready": not bad, "findings": [asdict(finding) for finding in findings]}
    out.result(record, f"{stack.name} is ready" if not bad else f"{stack.name}: {len(bad)} things to mend, see above")
    if bad:
        raise typer.Exit(1)


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
