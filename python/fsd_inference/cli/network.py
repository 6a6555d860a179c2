"""`fsd network`: generate, import and inspect networks."""

from __future__ import annotations

from collections import Counter
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fsd_inference.cli.console import Output, facts
from fsd_inference.cli.options import Json, examples
from fsd_inference.cli.outputs import check_distinct, check_output
from fsd_inference.errors import SettingError
from fsd_inference.units import bytes_text

if TYPE_CHECKING:
    from fsd_inference.network import Layer, Network

app = typer.Typer(name="network", help="Generate, import and inspect networks.")

_GENERATE_EXAMPLES = examples(
    "fsd network generate radixnet --neurons 1024 --layers 120 -o net",
    "fsd network generate random --widths 784,500,300,10 --seed 1 -o net",
)

_CONNECTIONS = 32  # of the Graph Challenge's networks

Target = Annotated[Path, typer.Option("--output", "-o", help="Directory to write the network to.")]


@app.command(epilog=_GENERATE_EXAMPLES)
def generate(
    kind: Annotated[
        Literal["radixnet", "random"],
        typer.Argument(
            help="radixnet: the official Graph Challenge networks. random: networks whose activations do not die out."
        ),
    ],
    output: Target,
    neurons: Annotated[
        int | None, typer.Option("--neurons", min=1, help="Number of features, and of neurons in each layer.")
    ] = None,
    layers: Annotated[int | None, typer.Option("--layers", min=1, help="Number of layers.")] = None,
    connections: Annotated[
        int | None,
        typer.Option("--connections", min=1, help=f"Number of inputs of each neuron. Default: {_CONNECTIONS}."),
    ] = None,
    widths: Annotated[
        str | None,
        typer.Option(
            "--widths",
            help="For random, instead of --neurons: number of features, then neurons of each layer, comma-separated; "
            "repeated if --layers is larger.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, help="For random: seed of the generator; equal seeds give equal networks."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Generate a network, layer by layer."""
    from fsd_inference.network import graph_challenge, random_network  # noqa: PLC0415

    out = Output(as_json)
    if kind == "radixnet":
        if widths is not None or seed is not None or connections not in {None, _CONNECTIONS}:
            raise SettingError(
                f"radixnet networks are fixed, with {_CONNECTIONS} connections a neuron: "
                "omit --connections, --widths and --seed, or generate a random network"
            )
        if neurons is None or layers is None:
            raise SettingError("a radixnet network needs --neurons and --layers")
        network = graph_challenge(neurons, layers)
    else:
        network = random_network(_widths(neurons, layers, widths), connections or _CONNECTIONS, seed=seed or 0)
    _save(out, network, output)


@app.command("import", epilog=examples("fsd network import neuron1024 -o net"))
def import_(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder of Graph Challenge files: n1024-l1.tsv, n1024-l2.tsv..., or .tsv.gz.", metavar="FOLDER"
        ),
    ],
    output: Target,
    bias: Annotated[
        float | None,
        typer.Option("--bias", help="Bias of all neurons. Default: that of the Graph Challenge, for official sizes."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Import a network from the Graph Challenge's TSV files, layer by layer."""
    from fsd_inference.network import graph_challenge_folder  # noqa: PLC0415

    out = Output(as_json)
    check_distinct(FOLDER=folder, output=output)
    _save(out, graph_challenge_folder(folder, bias), output)


@app.command(epilog=examples("fsd network info net"))
def info(
    network: Annotated[Path, typer.Argument(help="Directory of a network.", metavar="NETWORK")],
    as_json: Json = False,
) -> None:
    """Show the properties of a network, after verifying the checksums of all its files."""
    from fsd_inference.network import Network  # noqa: PLC0415

    out = Output(as_json)
    loaded = Network.load(network)
    activations: Counter[str] = Counter()
    one_value = zero_preserving = 0
    with out.progress() as tasks:
        tasks.begin("reading layers", len(loaded))
        for k, layer in enumerate(loaded):
            activations[_activation_text(layer)] += 1
            one_value += layer.one_value is not None
            zero_preserving += layer.zero_preserving
            tasks.advance("reading layers", k + 1)
    record = _record(loaded, network) | {
        "activations": dict(activations),
        "one_value_layers": one_value,
        "zero_preserving_layers": zero_preserving,
    }
    rows = [
        *_rows(loaded, network),
        ("activations", ", ".join(f"{name} ({count} layers)" for name, count in activations.items())),
        ("one value", f"{one_value} layers whose weights are all equal"),
        ("zero-preserving", f"{zero_preserving} layers that map an all-zero sample to zeros"),
    ]
    out.result(record, facts(rows))


def _widths(neurons: int | None, layers: int | None, widths: str | None) -> list[int]:
    """Return the number of features and the neurons of each layer, from the flags."""
    if widths is None:
        if neurons is None or layers is None:
            raise SettingError("a random network needs --neurons and --layers, or --widths")
        return [neurons] * (layers + 1)
    try:
        given = [int(width) for width in widths.split(",")]
    except ValueError:
        raise SettingError(f"--widths must be whole numbers separated by commas, not {widths!r}") from None
    if neurons not in {None, given[0]}:
        raise SettingError(f"--neurons {neurons} and --widths {widths} contradict each other; omit --neurons")
    if layers is None:
        return given
    if len(given) > layers + 1:
        raise SettingError(
            f"--widths {widths} describes {len(given) - 1} layers (the first width is the features), not {layers}"
        )
    return list(islice(cycle(given), layers + 1))


def _save(out: Output, network: Network, output: Path) -> None:
    check_output(output, directory=True)
    with out.progress() as tasks:
        tasks.begin("writing layers", len(network))
        network.save(output, lambda done: tasks.advance("writing layers", done))
    saved = type(network).load(output)
    out.result(_record(saved, output), facts(_rows(saved, output)))


def _record(network: Network, path: Path) -> dict[str, Any]:
    return {
        "path": str(path),
        "name": network.name,
        "layers": len(network),
        "widths": list(network.widths),
        "connections": network.connections,
        "bytes": _size(path),
        "digest": network.digest.hex(),
    }


def _rows(network: Network, path: Path) -> list[tuple[str, object]]:
    low, high = min(network.widths), max(network.widths)
    width = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return [
        ("network", f"{path} ({network.name}, {bytes_text(_size(path))})"),
        ("layers", f"{len(network):,}, {width} wide; {network.widths[0]:,} features, {network.widths[-1]:,} outputs"),
        ("connections", f"{network.connections:,}"),
        ("digest", network.digest.hex()),
    ]


def _size(path: Path) -> int:
    folder = path if path.is_dir() else path.parent
    return sum(file.stat().st_size for file in folder.iterdir())


def _activation_text(layer: Layer) -> str:
    activation = layer.activation
    return f"{activation.kind} at {activation.clip:g}" if activation.kind == "clipped_relu" else activation.kind
