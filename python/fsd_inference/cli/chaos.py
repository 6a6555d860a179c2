"""`fsd chaos`: inject faults into runs over local processes and an emulated AWS, and show what becomes of each run."""

from __future__ import annotations

from typing import Annotated

import typer

from fsd_inference.cli.console import Output, facts, table
from fsd_inference.cli.options import Json, examples

EXAMPLES = examples(
    "fsd chaos --seed 7", "fsd chaos --seed 1000 --schedules 200", "fsd chaos --channel queue --schedules 20"
)


def chaos(
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Seed of the first schedule; equal seeds give equal schedules.")
    ] = 0,
    schedules: Annotated[
        int, typer.Option("--schedules", min=1, help="Number of schedules, with seeds that follow each other.")
    ] = 1,
    channel: Annotated[
        list[str] | None,
        typer.Option("--channel", help="Only local, queue or object; can be given several times. Default: all."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Break runs on purpose: kill ranks, stop services, lose, change and refuse requests, by schedules from a seed.

    The runs are of a small network, over processes of this machine and an emulated AWS that is started for them and
    reached through a proxy; no AWS service and no stack of the user is touched. The exit code is 1 if a run gives a
    wrong answer, does not end in time, does not say how it ended, or leaves what the next run does not remove.
    """
    from fsd_inference.chaos.campaign import COLUMNS, carry_out, rows  # noqa: PLC0415
    from fsd_inference.chaos.schedule import PLACES, draw  # noqa: PLC0415

    out = Output(as_json)
    drawn = [draw(number, channel or PLACES) for number in range(seed, seed + schedules)]
    outcomes = []
    for outcome in carry_out(drawn):
        outcomes.append(outcome)
        out.note(f"{outcome.schedule}\n  {outcome}")
    failed = [outcome for outcome in outcomes if outcome.is_failure]
    shown = [table("Outcomes by fault", COLUMNS, rows(outcomes))] if schedules > 1 else []
    out.result(
        {"passed": not failed, "outcomes": [outcome.to_json() for outcome in outcomes]},
        *shown,
        facts([("failures", len(failed))]),
    )
    if failed:
        raise typer.Exit(1)
