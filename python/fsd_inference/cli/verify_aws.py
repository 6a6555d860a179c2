"""`fsd verify-aws`: small runs on functions within a cost limit, compared with a local run and their predictions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fsd_inference.cli.console import Output, facts, table
from fsd_inference.cli.options import Json, PricesFile, Profile, examples, use_profile
from fsd_inference.cli.outputs import check_output
from fsd_inference.errors import FsdError
from fsd_inference.units import usd_text

if TYPE_CHECKING:
    from fsd_inference.report.verification import Verification, VerifiedRun

EXAMPLES = examples("fsd verify-aws --stack stack.json --limit 0.05 -o verification")


def verify_aws(
    stack: Annotated[
        Path, typer.Option("--stack", envvar="FSD_STACK", help="The stack.json of a stack with functions.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Directory for verification.html and verification.json.")
    ] = Path("verification"),
    limit: Annotated[float, typer.Option("--limit", min=0.0, help="Maximum cost of the runs in USD.")] = 0.05,
    yes: Annotated[bool, typer.Option("--yes", help="Carry the runs out without asking.")] = False,
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
    from fsd_inference.report.verification import Verification  # noqa: PLC0415

    now = time.time()
    record = Verification(None, limit, now, now)
    try:
        _verify(record, out, stack, prices, yes=yes)
    except FsdError as error:
        record.problem = str(error)
        raise
    except BaseException:
        record.problem = "the command was interrupted"
        raise
    finally:
        record.skip_rest("the verification ended before it")
        page = _save(record, output)
    _show(record, out, page)


def _verify(record: Verification, out: Output, path: Path, prices: Path | None, *, yes: bool) -> None:
    from fsd_inference.aws.stack import load_stack  # noqa: PLC0415
    from fsd_inference.cost.prices import load_prices  # noqa: PLC0415
    from fsd_inference.session.verifying import names_of, verify  # noqa: PLC0415

    described = load_stack(path)
    record.stack = names_of(described)

    def confirm(runs: Sequence[VerifiedRun]) -> bool:
        out.note(facts([(run.name, f"USD {usd_text(run.predicted_usd)} predicted") for run in runs]))
        whole = sum(run.predicted_usd for run in runs)
        question = f"Carry out {len(runs)} runs for USD {usd_text(whole)} (at most {record.limit_usd:g})?"
        try:
            return yes or typer.confirm(question, err=True)
        except typer.Abort:  # Ctrl-C, or no terminal to ask at
            return False

    with out.progress() as tasks:
        verify(record, path, described, load_prices(described.region, prices), confirm=confirm, progress=tasks)


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
