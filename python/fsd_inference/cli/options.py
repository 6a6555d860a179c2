"""Options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from fsd_inference.channel_names import CHANNELS, current_name, renamed
from fsd_inference.cli.console import print_warning

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object, for machines.")]
Method = Literal["block", "random", "graph", "hypergraph"]
Stack = Annotated[Path, typer.Option("--stack", help="The stack.json of the resources.", metavar="STACK")]


Profile = Annotated[
    str | None,
    typer.Option(
        "--profile", help="Profile of your AWS configuration. Default: AWS_PROFILE, or keys in the environment."
    ),
]


Region = Annotated[str, typer.Option("--region", help="AWS region whose prices hold; the package has some.")]
PricesFile = Annotated[
    Path | None, typer.Option("--prices", help="A file of prices, as `fsd prices update` writes, instead of --region.")
]


def channel_name(given: str) -> str:
    """Return a channel's name of today, for `parser` of an option; people are told if it was called otherwise."""
    name = current_name(given)
    if name not in CHANNELS:
        raise typer.BadParameter(f"{given!r} is not one of {', '.join(CHANNELS)}.")
    if name != given:
        print_warning(renamed(given))
    return name


def use_profile(name: str | None) -> None:
    """Let this process and those that it starts use a profile, also where the environment holds keys."""
    if name is not None:
        os.environ["AWS_PROFILE"] = name
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            os.environ.pop(key, None)


TimingFiles = Annotated[
    list[Path] | None,
    typer.Option("--timing", help="A file of latencies and rates, as `fsd calibrate` writes; may be repeated."),
]


def examples(*commands: str) -> str:
    """Return what stands at the end of a command's help: examples, each on a line of its own."""
    lines = ["Example:" if len(commands) == 1 else "Examples:", *(f"  {command}" for command in commands)]
    return "\b\n" + "\n".join(lines)  # \b keeps the lines apart
