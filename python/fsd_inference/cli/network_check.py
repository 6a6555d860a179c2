"""`fsd network check`: compare a network with the model that it was imported from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fsd_inference.cli.console import Output, facts
from fsd_inference.cli.options import Json
from fsd_inference.errors import FsdError

if TYPE_CHECKING:
    from fsd_inference.network import Network
    from fsd_inference.network.fidelity import Check

Outputs = Annotated[
    str | None,
    typer.Option(
        "--outputs",
        help="ONNX: names of the tensors that the network computes, side by side, instead of the model's outputs; "
        "separated by commas.",
    ),
]

_SAMPLES = 16  # random ones, after an import


def check(
    network: Annotated[Path, typer.Argument(help="Directory of a network.", metavar="NETWORK")],
    against: Annotated[
        Path,
        typer.Option(
            "--against", help="The ONNX model, or the exported program of PyTorch (.pt2), that the network must equal."
        ),
    ],
    samples: Annotated[Path, typer.Option("--input", help="Samples, as for `fsd infer`.", metavar="INPUT")],
    outputs: Outputs = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance",
            min=0,
            help="Largest difference of an output that is allowed, relative to the model's largest output, or absolute "
            "where that is below 1. Default: 1e-4, or 0.05 for models in 16 bits.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare the outputs of a network with those of the model that it was imported from.

    The exit code is 1 if they differ by more than is allowed.
    """
    from fsd_inference.network import Network, load_inputs  # noqa: PLC0415
    from fsd_inference.session.checking import check as compare  # noqa: PLC0415

    out = Output(as_json)
    loaded = Network.load(network)
    found = compare(
        loaded, against, load_inputs(samples, loaded.widths[0]), outputs=chosen(outputs), tolerance=tolerance
    )
    out.result({**found.to_json(), "bound": found.bound, "agrees": found.agrees}, facts(_rows(found)))
    if not found.agrees:
        raise typer.Exit(1)


def chosen(outputs: str | None) -> list[str] | None:
    """Parse --outputs."""
    return None if outputs is None else outputs.split(",")


def checked_import(out: Output, network: Network, source: Path, outputs: Sequence[str] | None) -> Check | None:
    """Compare a network that was imported from a model with it on random samples; None if that is not possible."""
    import numpy as np  # noqa: PLC0415

    from fsd_inference.network.originals.opening import kind_of_file  # noqa: PLC0415
    from fsd_inference.session.checking import check as compare  # noqa: PLC0415

    if kind_of_file(source) is None:
        return None
    x = np.random.default_rng(0).standard_normal((_SAMPLES, network.widths[0]))
    try:
        return compare(network, source, x, outputs=outputs)
    except FsdError as error:
        out.note(f"not compared with the model: {error}")
        return None


def _rows(found: Check) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [
        ("against", found.against),
        ("samples", f"{found.samples:,}"),
        ("largest difference", f"{found.largest:.3g} (at most {found.bound:.3g} is allowed)"),
        ("mean difference", f"{found.mean:.3g}"),
        ("same largest output", f"{found.same_argmax:.2%} of the samples"),
    ]
    if found.worst:
        rows.append(("worst samples", ", ".join(f"{sample} ({value:.3g})" for sample, value in found.worst)))
    if found.parts_at is not None:
        rows.append(("they part at", found.parts_at))
    rows.append(("result", "they agree" if found.agrees else "THEY DIFFER"))
    return rows
