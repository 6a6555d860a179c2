"""The `fsd` program: its commands, and how they end.

Exit codes: 0 done; 1 it failed (or, for `demo`, an answer differs); 2 the input or a flag is wrong; 128 + N ended by
signal N: 129 hung up, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import Annotated, NoReturn

import typer

from fsd_inference import logs
from fsd_inference.cli import (
    advise,
    calibrate,
    cost,
    dataset,
    demo,
    infer,
    network,
    package,
    partition,
    prices,
    push,
    report,
    runs,
    simulate,
    stack,
    study,
)
from fsd_inference.cli.console import print_error, print_json
from fsd_inference.cli.ending import undo_when_ended
from fsd_inference.cli.failures import EXPLAINED, INTERRUPTED, explain
from fsd_inference.cli.options import examples
from fsd_inference.streams import open_streams

app = typer.Typer(
    name="fsd",
    help="Distributed inference of sparse neural networks over serverless services.",
    epilog=examples(
        "fsd demo",
        "fsd network generate radixnet --neurons 1024 --layers 120 -o net",
        "fsd dataset digits --neurons 1024 --samples 10000 -o digits.npz",
        "fsd infer net digits.npz -o out.npz --channel local --workers 4",
    ),
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("demo", epilog=demo.EXAMPLES, short_help="Run over an emulated AWS here and compare.")(demo.demo)
app.command("cost", epilog=cost.EXAMPLES, short_help="Say what a run costs on AWS.")(cost.cost)
app.command("advise", epilog=advise.EXAMPLES, short_help="Say how a network should be run.")(advise.advise)
app.command("study", epilog=study.EXAMPLES, short_help="Say what a day's queries cost.")(study.study)
app.command("infer", epilog=infer.EXAMPLES, short_help="Push a batch through a network.")(infer.infer)
app.command("report", epilog=report.EXAMPLES, short_help="Compare runs; write pages and plots of them.")(report.report)
app.command("partition", epilog=partition.EXAMPLES, short_help="Cut a network for P workers.")(partition.partition)
app.command("push", epilog=push.EXAMPLES, short_help="Upload a network to a stack.")(push.push)
app.command("simulate", epilog=simulate.EXAMPLES, short_help="Say what a run would take and cost.")(simulate.simulate)
app.command("calibrate", epilog=calibrate.EXAMPLES, short_help="Measure this machine, or fit services on runs.")(
    calibrate.calibrate
)
app.add_typer(network.app)
app.add_typer(dataset.app)
app.add_typer(stack.app)
app.add_typer(runs.app)
app.add_typer(prices.app)
app.add_typer(package.app)


@app.callback(invoke_without_command=True)
def _fsd(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and the kernel path in use.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Log on standard error, ranks too; FSD_LOG=debug logs more.")
    ] = False,
) -> None:
    if verbose:
        os.environ.setdefault(logs.VARIABLE, "info")
    logs.start()
    if version:
        typer.echo(_version_text())
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _version_text() -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    from fsd_inference import kernels  # noqa: PLC0415

    try:
        number = version("fsd-inference")
    except PackageNotFoundError:
        number = "(not installed)"
    return f"fsd {number}, kernel {kernels.simd_path()}"


@cache
def _program() -> Callable[..., object]:
    """Return the commands with their flags, which takes longer to put together than most of them run."""
    return typer.main.get_command(app)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    arguments : sequence of str
        What follows the program's name.
    """
    try:
        code = _program()(args=list(arguments), prog_name="fsd", standalone_mode=False)
    except EXPLAINED as error:
        failure = explain(error)
    else:
        if code != INTERRUPTED.code:  # typer's answer to Ctrl-C
            return code if isinstance(code, int) else 0
        failure = INTERRUPTED
    print_error(failure.text)
    if "--json" in arguments:
        with suppress(OSError):  # what failed may be stdout itself
            print_json({"error": failure.record})
    return failure.code


def main() -> NoReturn:
    """Run the program; the entry point of `fsd`."""
    open_streams()
    undo_when_ended()
    sys.exit(run(sys.argv[1:]))
