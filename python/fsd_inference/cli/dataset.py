"""`fsd dataset`: write real inputs for a network, without a download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fsd_inference.cli.console import Output, facts
from fsd_inference.cli.options import Json, examples
from fsd_inference.cli.outputs import check_output
from fsd_inference.units import bytes_text

app = typer.Typer(name="dataset", help="Create inputs for a network.")


@app.command(epilog=examples("fsd dataset digits --neurons 1024 --samples 10000 -o digits.npz"))
def digits(
    neurons: Annotated[
        int, typer.Option("--neurons", min=1, help="Number of features of a sample, equal to the network's inputs.")
    ],
    samples: Annotated[
        int, typer.Option("--samples", min=1, help="Number of samples; those after the first 1,797 are shifted copies.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write, samples x features: .npz, .npy, .csv or .parquet.")
    ],
    as_json: Json = False,
) -> None:
    """Write scikit-learn's handwritten digits, upsampled to N features and thresholded to 0 and 1."""
    from fsd_inference import network  # noqa: PLC0415

    out = Output(as_json)
    check_output(output)
    network.check_output_format(output)
    batch = network.digits(neurons, samples)
    size = network.save_outputs(output, batch)
    out.result(
        {"path": str(output), "samples": samples, "features": neurons, "ones": int(batch.nnz), "bytes": size},
        facts(
            [
                ("inputs", f"{output} ({bytes_text(size)})"),
                ("shape", f"{samples:,} samples x {neurons:,} features"),
                ("ones", f"{batch.nnz:,} ({batch.nnz / (samples * neurons):.1%})"),
            ]
        ),
    )
