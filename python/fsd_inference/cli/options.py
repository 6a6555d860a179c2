"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object, for machines.")]
Method = Literal["block", "random", "graph", "hypergraph"]

Region = Annotated[str, typer.Option("--region", help="AWS region whose prices hold; the package has some.")]
PricesFile = Annotated[
    Path | None, typer.Option("--prices", help="A file of prices, as `fsd prices update` writes, instead of --region.")
]


def examples(*commands: str) -> str:
    """Return what stands at the end of a command's help: examples, each on a line of its own."""
    lines = ["Example:" if len(commands) == 1 else "Examples:", *(f"  {command}" for command in commands)]
    return "\b\n" + "\n".join(lines)  # \b keeps the lines apart
