"""The `fsd` program: the list of its commands, and its exit codes.

Exit codes: 0 success; 1 failure (for `demo` and `diff` also differing outputs); 2 invalid input or flag; 128 + N
terminated by signal N: 129 SIGHUP, 130 SIGINT, 143 SIGTERM.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Annotated, NoReturn

import typer

from fsd_inference import logs
from fsd_inference.cli import (
    advise,
    calibrate,
    chaos,
    cost,
    dataset,
    demo,
    diff,
    infer,
    network,
    package,
    partition,
    prices,
    prune,
    push,
    report,
    runs,
    simulate,
    stack,
    study,
    verify_aws,
)
from fsd_inference.cli.console import print_error, print_json
from fsd_inference.cli.ending import undo_when_ended
from fsd_inference.cli.failures import EXPLAINED, INTERRUPTED, explain
from fsd_inference.cli.options import examples, variable_of
from fsd_inference.errors import InputError
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
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command(
    "demo", epilog=demo.EXAMPLES, short_help="Run a network over an emulated AWS and compare with one process."
)(demo.demo)
app.command("cost", epilog=cost.EXAMPLES, short_help="Compute what a run costs on AWS.")(cost.cost)
app.command("advise", epilog=advise.EXAMPLES, short_help="Recommend how to run a network.")(advise.advise)
app.command("study", epilog=study.EXAMPLES, short_help="Compute what a day of queries costs.")(study.study)
app.command("infer", epilog=infer.EXAMPLES, short_help="Run inference of a batch.")(infer.infer)
app.command("report", epilog=report.EXAMPLES, short_help="Compare runs; write HTML pages and plots.")(report.report)
app.command("diff", epilog=diff.EXAMPLES, short_help="Name the first layer that differs between two runs.")(diff.diff)
app.command("partition", epilog=partition.EXAMPLES, short_help="Partition a network for P workers.")(
    partition.partition
)
app.command("push", epilog=push.EXAMPLES, short_help="Upload a network to a stack.")(push.push)
app.command("simulate", epilog=simulate.EXAMPLES, short_help="Simulate the time and cost of a run.")(simulate.simulate)
app.command(
    "calibrate", epilog=calibrate.EXAMPLES, short_help="Measure this machine, or fit service latencies to runs."
)(calibrate.calibrate)
app.command("verify-aws", epilog=verify_aws.EXAMPLES, short_help="Verify predictions by small runs on AWS.")(
    verify_aws.verify_aws
)
app.command("chaos", epilog=chaos.EXAMPLES, short_help="Inject faults into runs on an emulated AWS.")(chaos.chaos)
network.app.command("prune", epilog=prune.EXAMPLES)(prune.prune)
app.add_typer(network.app)
app.add_typer(dataset.app)
app.add_typer(stack.app)
app.add_typer(runs.app)
app.add_typer(prices.app)
app.add_typer(package.app)


@app.callback(invoke_without_command=True)
def _fsd(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and the SIMD path of the kernels.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Log to standard error, including ranks; set FSD_LOG=debug for more.")
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
    """Return the command line parser; cached, since building it takes longer than most commands run."""
    return typer.main.get_command(app)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    arguments : sequence of str
        Command line arguments without the program's name.
    """
    try:
        code = _program()(args=list(arguments), prog_name="fsd", standalone_mode=False)
    except EXPLAINED as error:
        failure = explain(error)
        variable = variable_of(failure.text, arguments) if isinstance(error, InputError) else None
        if variable is not None:
            failure = replace(failure, text=f"{failure.text} ({variable} is {os.environ[variable]})")
    else:
        if code != INTERRUPTED.code:  # which typer returns on Ctrl-C
            return code if isinstance(code, int) else 0
        failure = INTERRUPTED
    print_error(failure.text)
    if "--json" in arguments:
        with suppress(OSError):  # stdout itself may have failed
            print_json({"error": failure.record})
    return failure.code


def main() -> NoReturn:
    """Run the program with the process's arguments: the entry point of `fsd`."""
    open_streams()
    undo_when_ended()
    sys.exit(run(sys.argv[1:]))
