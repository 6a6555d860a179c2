"""`fsd infer --verify-against`: compare a run with an earlier one before its answer is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fsd_inference.cli.console import Output
from fsd_inference.cli.outputs import check_distinct
from fsd_inference.errors import InputError, OutputError, SettingError, VerificationError
from fsd_inference.run_report import REPORT_FILE, RunReport

if TYPE_CHECKING:
    from fsd_inference.report import Report


def earlier_run(path: Path, report: Path | None, *, is_in_parts: bool) -> RunReport:
    """Read the report to compare a run with, whose own `report` must not replace it.

    Raises
    ------
    InputError
        It is no report of a run with digests; or INPUT is answered in parts, each of which is a run.
    """
    from fsd_inference.report.difference import checked  # noqa: PLC0415

    if is_in_parts:
        raise SettingError("--verify-against compares one run: give one input file, and a file to --output")
    file = path / REPORT_FILE if path.is_dir() else path
    check_distinct(verify_against=file, report=None if report is None else report / REPORT_FILE)
    earlier = RunReport.load(file)
    checked(earlier, str(path))
    return earlier


def verify_run(made: Report, earlier: RunReport, path: Path, save: Callable[[Report], None]) -> None:
    """Compare a run with an earlier one, which was read from `path`; unless they agree, save the run's report.

    Raises
    ------
    VerificationError
        A layer differs; the report that is saved has the error.
    SettingError
        The earlier run was of another network or batch.
    """
    from fsd_inference.report.difference import first_difference  # noqa: PLC0415

    try:
        found = first_difference(made, earlier, ("this run", str(path)))
    except SettingError:
        save(made)
        raise
    if found is None:
        return
    rank = found.ranks[0] if found.ranks and found.part == "rank" else None
    error = VerificationError(
        f"the answer is not that of {path} and was not written: {found}; run both again to see which of them is wrong",
        rank=rank,
        layer=found.layer,
        operation="verify",
    )
    save(replace(made, error=error.record()))
    raise error


def save_report(found: Report | None, report: Path | None, plots: bool, out: Output) -> None:
    """Save the report of a failed run; an error of saving is only printed, so that the run's own error is raised."""
    if found is not None and report is not None:
        try:
            found.save(report, plots=plots)
        except (InputError, OutputError) as error:
            out.note(f"no report: {error}")
