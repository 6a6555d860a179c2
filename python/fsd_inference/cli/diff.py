"""`fsd diff`: compare two runs by the digests of their layers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fsd_inference.cli.console import Output
from fsd_inference.cli.options import Json, examples

EXAMPLES = examples("fsd diff run1 run2", "fsd diff run1/report.json run2/report.json --json")

_RUN = "Directory written by `fsd infer --verify --report`, or its report.json."


def diff(
    one: Annotated[Path, typer.Argument(help=_RUN, metavar="RUN")],
    other: Annotated[Path, typer.Argument(help=_RUN, metavar="RUN")],
    as_json: Json = False,
) -> None:
    """Name the first layer, and the ranks, whose outputs differ between two runs of one network and batch.

    The exit code is 0 if no layer differs, 1 if one does, and 2 if the runs cannot be compared. Ranks are only named if
    both runs divide the network in the same way.
    """
    from fsd_inference.report.difference import first_difference  # noqa: PLC0415
    from fsd_inference.run_report import RunReport  # noqa: PLC0415

    ours, theirs = RunReport.load(one), RunReport.load(other)
    found = first_difference(ours, theirs, (str(one), str(other)))
    record = {
        "same": found is None,
        "layers": ours.layers,
        "layer": found and found.layer,
        "ranks": None if found is None or found.ranks is None else list(found.ranks),
    }
    said = f"the outputs of all {ours.layers:,} layers are the same" if found is None else str(found)
    Output(as_json).result(record, said)
    if found is not None:
        raise typer.Exit(1)
