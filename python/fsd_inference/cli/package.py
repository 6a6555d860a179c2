"""`fsd package`: build the zip package of a stack's functions, for deployments without a container image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fsd_inference.cli.console import Output, facts
from fsd_inference.cli.options import Json, examples
from fsd_inference.cli.outputs import check_distinct, check_output
from fsd_inference.units import bytes_text

app = typer.Typer(name="package", help="Build the code package of a stack's functions.")

_TASK = "downloading libraries"


@app.callback()
def _package() -> None:
    """Force a command group: typer would merge a single command into its group."""


@app.command(
    "zip",
    epilog=examples("fsd package zip -o fsd-lambda.zip", "fsd package zip --arch arm64 --wheel fsd_*.whl -o a.zip"),
)
def zip_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    arch: Annotated[
        Literal["x86_64", "arm64"], typer.Option("--arch", help="Architecture of the functions.")
    ] = "x86_64",
    python: Annotated[
        str,
        typer.Option("--python", help="Version of Lambda's Python runtime; at least 3.12, the oldest with glibc 2.34."),
    ] = "3.13",
    wheel: Annotated[
        Path | None, typer.Option("--wheel", help="Wheel of this package to include. Default: the installed package.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the zip package of the functions: the contents of the image, with libraries at their locked versions."""
    from fsd_inference.aws.package import Target, build_zip  # noqa: PLC0415

    out = Output(as_json)
    check_output(output)
    check_distinct(wheel=wheel, output=output)
    target = Target(arch, python)
    with out.progress() as tasks:
        begun = False

        def on_library(done: int, total: int) -> None:
            nonlocal begun
            if not begun:
                begun = True
                tasks.begin(_TASK, total)
            tasks.advance(_TASK, done)

        written = build_zip(output, target, wheel=wheel, on_library=on_library)
    record = {
        "path": str(output),
        "arch": arch,
        "python": python,
        "zipped_bytes": written.zipped_bytes,
        "unpacked_bytes": written.unpacked_bytes,
        "files": written.files,
        "sha256": written.sha256,
    }
    rows = [
        ("zip", f"{output} ({arch}, Python {python})"),
        ("size", f"{bytes_text(written.zipped_bytes)}, unpacked {bytes_text(written.unpacked_bytes)}"),
        ("sha256", written.sha256),
    ]
    out.result(record, facts(rows))
