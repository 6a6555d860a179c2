"""`fsd verify-aws`: small runs on functions within a cost limit, compared with a local run and their predictions."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fsd_inference.cli.console import Output, facts, table
from fsd_inference.cli.options import Json, PricesFile, Profile, examples, use_profile
from fsd_inference.cli.outputs import check_output
from fsd_inference.errors import FsdError, SettingError
from fsd_inference.units import usd_text

if TYPE_CHECKING:
    from fsd_inference.report.verification import Verification, VerifiedRun

_TERRAFORM = "terraform"  # folder of configuration and state, while there is a stack

EXAMPLES = examples(
    "fsd verify-aws --stack stack.json --limit 0.05 -o verification",
    "fsd verify-aws --terraform terraform --package fsd-lambda.zip -o verification",
    "fsd verify-aws --bill -o verification",
)


def verify_aws(
    stack: Annotated[
        Path | None, typer.Option("--stack", envvar="FSD_STACK", help="The stack.json of a stack with functions.")
    ] = None,
    terraform: Annotated[
        Path | None,
        typer.Option("--terraform", help="The Terraform module, to make a small stack from and delete it at the end."),
    ] = None,
    package: Annotated[
        Path, typer.Option("--package", help="For --terraform: the functions' package, from `fsd package zip`.")
    ] = Path("fsd-lambda.zip"),
    region: Annotated[
        str | None, typer.Option("--region", help="For --terraform: AWS region. Default: that of the configuration.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Directory for verification.html and verification.json.")
    ] = Path("verification"),
    limit: Annotated[float, typer.Option("--limit", min=0.0, help="Maximum cost of the runs in USD.")] = 0.05,
    yes: Annotated[bool, typer.Option("--yes", help="Carry the runs out without asking.")] = False,
    bill: Annotated[
        bool, typer.Option("--bill", help="Run nothing: compare an earlier verification with CloudWatch's metrics.")
    ] = False,
    prices: PricesFile = None,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Verify a stack with a few small runs: answers, requests, bytes, times and costs against their predictions.

    The predicted costs are shown and confirmed first. A run whose prediction would exceed the limit, together with what
    was counted so far, is skipped. The exit code is 1 unless all runs gave the same bits as a local process.
    """
    out = Output(as_json)
    use_profile(profile)
    check_output(output, directory=True, filled=True)
    if bill:
        _bill(out, output)
        return
    if terraform is not None:
        stack = None  # which the environment may have set
    elif stack is None:
        raise SettingError("give a stack with --stack, or the Terraform module that makes one with --terraform")
    from fsd_inference.report.verification import Verification  # noqa: PLC0415

    now = time.time()
    record = Verification(None, limit, now, now)
    try:
        with _noted(record), _stack(stack, terraform, package, output, region, out) as path, _noted(record):
            _verify(record, out, path, prices, yes=yes)
    finally:
        record.skip_rest("the verification ended before it")
        if terraform is not None:
            record.left = _left(output)
        page = _save(record, output)
    _show(record, out, page)


@contextmanager
def _noted(record: Verification) -> Iterator[None]:
    """Write the first exception that ends the block into the record."""
    try:
        yield
    except BaseException as error:
        record.problem = record.problem or (
            str(error) if isinstance(error, FsdError) else "the command was interrupted"
        )
        raise


def _left(output: Path) -> str | None:
    from fsd_inference.aws.terraform import stack_left  # noqa: PLC0415

    return stack_left(output / _TERRAFORM)


@contextmanager
def _stack(
    stack: Path | None, module: Path | None, package: Path, output: Path, region: str | None, out: Output
) -> Iterator[Path]:
    """Yield the path of the user's stack.json, or of that of a stack which exists during the block."""
    if stack is not None or module is None:
        yield stack or Path()
        return
    from fsd_inference.aws.terraform import terraform_stack  # noqa: PLC0415
    from fsd_inference.session.verifying import CASES  # noqa: PLC0415

    ranks = max(workers for channel, workers in CASES if channel == "queue")
    out.note("making a stack with Terraform, which takes minutes")
    with terraform_stack(module, package, output / _TERRAFORM, region=region, ranks=ranks) as path:
        _wait(path, out)
        yield path
        out.note("deleting the stack")


def _wait(path: Path, out: Output) -> None:
    """Wait until messages of a new stack reach only the right queues, and print what is wrong with it."""
    from fsd_inference.aws.clients import Clients  # noqa: PLC0415
    from fsd_inference.aws.preflight import preflight  # noqa: PLC0415
    from fsd_inference.aws.stack import load_stack  # noqa: PLC0415

    stack = load_stack(path)
    clients = Clients.of_stack(stack)
    try:
        for finding in preflight(clients, stack, wait=True, wake=False):
            out.note(f"{finding.state:<8} {finding.what}: {finding.text}")
    finally:
        clients.close()


def _verify(record: Verification, out: Output, path: Path, prices: Path | None, *, yes: bool) -> None:
    from fsd_inference.aws.stack import load_stack  # noqa: PLC0415
    from fsd_inference.cost.prices import load_prices  # noqa: PLC0415
    from fsd_inference.session.verifying import names_of, verify  # noqa: PLC0415

    described = load_stack(path)
    record.stack = names_of(described)
    record.began = record.ended = time.time()

    def confirm(runs: Sequence[VerifiedRun]) -> bool:
        out.note(facts([(run.name, f"USD {usd_text(run.predicted_usd)} predicted") for run in runs]))
        whole = sum(run.predicted_usd for run in runs)
        # A line of its own: progress bars hold back what does not end a line.
        out.note(f"{len(runs)} runs for USD {usd_text(whole)}, at most {record.limit_usd:g}; carry them out? y or N")
        try:
            return yes or typer.confirm("", err=True)
        except typer.Abort:  # Ctrl-C, or no terminal to ask at
            return False

    with out.progress() as tasks:
        verify(record, path, described, load_prices(described.region, prices), confirm=confirm, progress=tasks)


def _bill(out: Output, output: Path) -> None:
    from fsd_inference.aws.clients import Clients  # noqa: PLC0415
    from fsd_inference.fields import parse_json, read_text  # noqa: PLC0415
    from fsd_inference.report.verification import Verification  # noqa: PLC0415
    from fsd_inference.report.verification_page import RECORD, bill_rows  # noqa: PLC0415
    from fsd_inference.session.billing import compare_bill  # noqa: PLC0415

    file = output / RECORD
    record = parse_json(read_text(file), str(file), Verification.from_json)
    clients = Clients(region=None if record.stack is None else record.stack.region)
    try:
        denied = compare_bill(record, clients.metrics)
    finally:
        clients.close()
    if denied is not None:
        out.result({"denied": denied, "bill": []}, denied)
        return
    page = _save(record, output)
    lines = [{"what": each.what, "runs": each.predicted, "cloudwatch": each.counted} for each in record.bill]
    columns = ("figure", "runs", "CloudWatch", "ratio")
    out.result(
        {"page": str(page), "bill": lines}, table("Counted", columns, bill_rows(record)), facts([("page", page)])
    )


def _save(record: Verification, output: Path) -> Path:
    from fsd_inference.report.verification_page import save_verification  # noqa: PLC0415

    return save_verification(record, output)


def _show(record: Verification, out: Output, page: Path) -> None:
    from fsd_inference.report.verification_page import RUN_COLUMNS, run_row  # noqa: PLC0415

    rows = [("page", page), ("cost", f"USD {usd_text(record.spent_usd)} of at most {record.limit_usd:g}")]
    out.result(
        {"page": str(page), "passed": record.is_good, **record.to_json()},
        table("Verification on AWS", RUN_COLUMNS, map(run_row, record.runs)),
        facts(rows),
    )
    if not record.is_good:
        raise typer.Exit(1)
