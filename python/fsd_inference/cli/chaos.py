"""`fsd chaos`: inject faults into runs over local processes and an emulated AWS, and show what becomes of each run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fsd_inference.cli.console import Output, facts, table
from fsd_inference.cli.options import Json, examples
from fsd_inference.errors import SettingError

if TYPE_CHECKING:
    from fsd_inference.chaos.schedule import Schedule
    from fsd_inference.chaos.trial import Outcome

EXAMPLES = examples(
    "fsd chaos --seed 7",
    "fsd chaos --seed 1000 --schedules 200",
    "fsd chaos --channel queue --ranks functions --schedules 20",
    "fsd chaos --kills",
    "fsd chaos --soak 15",
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
    ranks: Annotated[
        Literal["processes", "functions"],
        typer.Option("--ranks", help="What ranks are; functions of the emulated AWS need awslambdaric."),
    ] = "processes",
    kills: Annotated[
        bool, typer.Option("--kills", help="In place of schedules: kill each rank at each tenth of a run.")
    ] = False,
    soak: Annotated[
        float | None,
        typer.Option("--soak", min=0.1, help="In place of schedules: minutes of two programs that run undisturbed."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Break runs on purpose: kill ranks, stop services, lose, change and refuse requests, by schedules from a seed.

    The runs are of a small network, over processes of this machine and an emulated AWS that is started for them and
    reached through a proxy; no AWS service and no stack of the user is touched. The exit code is 1 if a run gives a
    wrong answer, does not end in time, does not say how it ended, or leaves what the next run does not remove.
    """
    out = Output(as_json)
    if soak is not None:
        if kills or channel or ranks == "functions":
            raise SettingError("--soak runs two programs, over queue and object: leave out --kills, --channel, --ranks")
        _soak(out, soak)
        return
    from fsd_inference.chaos.schedule import FUNCTION_PLACES, PROCESS_PLACES, draw  # noqa: PLC0415

    known = PROCESS_PLACES if ranks == "processes" else FUNCTION_PLACES
    channels = {place.split()[0]: place for place in known}
    unknown = [name for name in channel or () if name not in channels]
    if unknown:
        raise SettingError(f"--channel must be one of {', '.join(channels)} where ranks are {ranks}, not {unknown[0]}")
    places = [channels[name] for name in channel or channels]
    if kills:
        if ranks == "functions":
            raise SettingError("--kills kills processes: leave out --ranks functions")
        _kills(out, places)
        return
    drawn = [draw(number, places) for number in range(seed, seed + schedules)]
    from fsd_inference.chaos.campaign import COLUMNS, rows  # noqa: PLC0415

    outcomes = _carry_out(out, drawn)
    shown = [table("Outcomes by fault", COLUMNS, rows(outcomes))] if schedules > 1 else []
    failed = [outcome for outcome in outcomes if outcome.is_failure]
    out.result(_record(outcomes, len(failed)), *shown, facts([("failures", len(failed))]))
    if failed:
        raise typer.Exit(1)


def _carry_out(out: Output, schedules: Sequence[Schedule]) -> list[Outcome]:
    from fsd_inference.chaos.campaign import trials  # noqa: PLC0415

    outcomes = []
    with trials() as carrier:
        for schedule in schedules:
            outcomes.append(carrier.run(schedule))
            out.note(f"{schedule}\n  {outcomes[-1]}")
    return outcomes


def _record(outcomes: Sequence[Outcome], failures: int) -> dict[str, object]:
    return {"failures": failures, "outcomes": [outcome.to_json() for outcome in outcomes]}


def _kills(out: Output, places: Sequence[str]) -> None:
    from fsd_inference.chaos.kills import COLUMNS, problem, rows, schedules  # noqa: PLC0415

    outcomes = _carry_out(out, schedules(places))
    broken = [text for text in map(problem, outcomes) if text is not None]
    for text in broken:
        out.note(f"broken: {text}")
    out.result(
        _record(outcomes, len(broken)),
        table("SIGKILL of each rank at each tenth of a run", COLUMNS, rows(outcomes)),
        facts([("failures", len(broken))]),
    )
    if broken:
        raise typer.Exit(1)


def _soak(out: Output, minutes: float) -> None:
    from fsd_inference.chaos.campaign import trials  # noqa: PLC0415
    from fsd_inference.chaos.soak import COLUMNS, soak  # noqa: PLC0415

    with trials() as carrier, out.progress() as tasks:
        site = carrier.open_site(False)
        tasks.begin("soak", 60 * minutes)
        found = soak(60 * minutes, site, carrier.folder, carrier.right, lambda passed: tasks.advance("soak", passed))
    out.result(
        {"passed": found.is_good, "programs": [each.to_json() for each in found.programs], "left": list(found.left)},
        table(f"Two programs for {minutes:g} minutes", COLUMNS, (each.row() for each in found.programs)),
        facts([("left", "; ".join(found.left) or "nothing")]),
    )
    if not found.is_good:
        raise typer.Exit(1)
