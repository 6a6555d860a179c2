"""Command line options that several commands share."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fsd_inference.channel_names import CHANNELS, MODELLED, current_name, modelled_only, renamed
from fsd_inference.cli.console import print_warning

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Method = Literal["block", "random", "graph", "hypergraph"]
Stack = Annotated[
    Path, typer.Option("--stack", envvar="FSD_STACK", help="The stack.json of the stack.", metavar="STACK")
]


Profile = Annotated[
    str | None,
    typer.Option(
        "--profile", help="Profile of the AWS configuration. Default: AWS_PROFILE, or credentials in the environment."
    ),
]


Region = Annotated[
    str,
    typer.Option(
        "--region", envvar="FSD_REGION", help="AWS region whose prices apply; the package includes some regions."
    ),
]
PricesFile = Annotated[
    Path | None,
    typer.Option(
        "--prices", envvar="FSD_PRICES", help="File of prices, as written by `fsd prices update`, instead of --region."
    ),
]
PublishQuota = Annotated[
    int | None,
    typer.Option(
        "--publish-quota",
        min=1,
        help="Messages a second that your account may publish to SNS, if AWS has raised it. Default: the region's.",
    ),
]


Buckets = Annotated[
    int,
    typer.Option(
        "--buckets", min=1, help="Number of buckets over which channel object spreads its objects, and so its requests."
    ),
]


SETTINGS = {"FSD_STACK": "--stack", "FSD_CHANNEL": "--channel", "FSD_REGION": "--region", "FSD_PRICES": "--prices"}
"""Environment variables that set options, and the options."""


def variable_of(message: str, arguments: Sequence[str]) -> str | None:
    """Return the environment variable whose value an error message names, if no argument overrides it; else None."""
    for variable, option in SETTINGS.items():
        value = os.environ.get(variable)
        is_given = any(argument.partition("=")[0] == option for argument in arguments)
        if value and not is_given and re.search(rf"(?<![\w./-]){re.escape(value)}(?![\w/-])", message):
            return variable
    return None


def channel_name(given: str) -> str:
    """Parse the value of a channel option: return the current name, and warn about a former one."""
    name = current_name(given)
    if name in MODELLED:
        raise typer.BadParameter(f"{modelled_only(name)}.")
    if name not in CHANNELS:
        raise typer.BadParameter(f"{given!r} is not one of {', '.join(CHANNELS)}.")
    if name != given:
        print_warning(renamed(given))
    return name


def checkpoint_interval(given: str | int) -> int | Literal["auto"]:
    """Parse the value of `CheckpointEvery`."""
    if given == "auto":
        return "auto"
    try:
        return int(given)
    except ValueError:
        raise typer.BadParameter(f"{given!r} is neither auto nor a whole number.") from None


CheckpointEvery = Annotated[
    # The type that the parser returns cannot be said here: it is not one that typer knows.
    Any,
    typer.Option(
        "--checkpoint-every",
        parser=checkpoint_interval,
        metavar="[LAYERS|auto]",
        help="Number of layers after which each worker stores its activations. Another attempt goes on from there, and "
        "so do other functions if a run takes longer than a function may. auto: as often as costs least, by a "
        "prediction. 0: no checkpoints.",
    ),
]


HANDED_ON_S = 12 * 3600.0
"""Time in seconds after which a run is given up that functions hand on: half of that after which a stack deletes its
objects."""


def use_profile(name: str | None) -> None:
    """Make this process and its children use a profile, even if the environment contains credentials."""
    if name is not None:
        os.environ["AWS_PROFILE"] = name
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            os.environ.pop(key, None)


TimingFiles = Annotated[
    list[Path] | None,
    typer.Option("--timing", help="File of latencies and rates, as written by `fsd calibrate`; may be repeated."),
]


def examples(*commands: str) -> str:
    """Return the epilog of a command's help: its examples, one a line."""
    lines = ["Example:" if len(commands) == 1 else "Examples:", *(f"  {command}" for command in commands)]
    return "\b\n" + "\n".join(lines)  # \b prevents rewrapping of the lines
