"""`fsd network`: generate, import and inspect networks; `fsd network prune` is in `cli/prune.py`."""

from __future__ import annotations

from collections import Counter
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fsd_inference.cli.completion import networks
from fsd_inference.cli.console import Output, facts
from fsd_inference.cli.network_check import Outputs, check, checked_import, chosen
from fsd_inference.cli.options import Json, examples
from fsd_inference.cli.outputs import check_distinct, check_output
from fsd_inference.errors import InputError, SettingError
from fsd_inference.units import bytes_text

if TYPE_CHECKING:
    from fsd_inference.network import Activation, Network
    from fsd_inference.network.fidelity import Check

app = typer.Typer(name="network", help="Generate, import, prune, inspect and check networks.")
app.command(epilog=examples("fsd network check net --against model.onnx --input x.npz"))(check)

_GENERATE_EXAMPLES = examples(
    "fsd network generate radixnet --neurons 1024 --layers 120 -o net",
    "fsd network generate random --widths 784,500,300,10 --seed 1 -o net",
)

_IMPORT_EXAMPLES = examples(
    "fsd network import matrices -o net --activation relu",
    "fsd network import layer-1.mtx layer-2.mtx -o net --transpose",
    "fsd network import model.safetensors --layers fc1,fc2,fc3 -o net",
    "fsd network import model.onnx -o net",
    "fsd network import model.onnx --outputs scores,boxes -o net",
    "fsd network import model.pt2 -o net",
    "fsd network import neuron1024 -o net",
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


@app.command("import", epilog=_IMPORT_EXAMPLES)
def import_(
    source: Annotated[
        list[Path],
        typer.Argument(
            help="Folder of matrices, one file per layer: layer-1.npz (SciPy), .npy, .mtx or .mtx.gz, layer-2.npz..., "
            "and layer-1.bias.npy if it has a bias; or such files. Safetensors file of a state dict, or its "
            "model.safetensors.index.json. ONNX model that is a feed-forward graph of supported operators. "
            "Program of PyTorch, as torch.export.save writes it (.pt2). Graph Challenge folder: n1024-l1.tsv, "
            "n1024-l2.tsv..., or .tsv.gz.",
            metavar="SOURCE",
        ),
    ],
    output: Target,
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers",
            help="Safetensors: names of the layers in order, separated by commas; fc1 means the tensors fc1.weight "
            "and fc1.bias. Without it, the tensors are listed.",
        ),
    ] = None,
    activation: Annotated[
        str | None,
        typer.Option(
            "--activation",
            help="Matrices and safetensors: relu, tanh, clipped_relu:32 and so on (kind:parameters), one for all "
            "layers, or one per layer separated by commas. Default: relu, with identity for the last layer.",
        ),
    ] = None,
    transpose: Annotated[
        bool, typer.Option("--transpose", help="Matrices: rows are inputs. Default: rows are outputs.")
    ] = False,
    bias: Annotated[
        float | None,
        typer.Option(
            "--bias", help="Graph Challenge: bias of all neurons. Default: the official one, for official sizes."
        ),
    ] = None,
    outputs: Outputs = None,
    most_connections: Annotated[
        int | None,
        typer.Option(
            "--most-connections",
            min=1,
            help="ONNX and .pt2: how many connections the network may have, one for each weight and position of a "
            "convolution. Default: 100 million.",
        ),
    ] = None,
    no_check: Annotated[
        bool,
        typer.Option("--no-check", help="ONNX and .pt2: do not compare the network with the model on random samples."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Import a network from files; their kind is detected."""
    from fsd_inference.network import import_network  # noqa: PLC0415

    out = Output(as_json)
    for path in source:
        check_distinct(SOURCE=path, output=output)
    network = import_network(
        source[0] if len(source) == 1 else source,
        layers=None if layers is None else layers.split(","),
        activations=None if activation is None else _activations(activation),
        transpose=transpose,
        bias=bias,
        outputs=chosen(outputs),
        most_connections=most_connections,
        notice=out.note,
    )
    check = None if no_check or len(source) > 1 else checked_import(out, network, source[0], chosen(outputs))
    _save(out, network, output, check)


@app.command(epilog=examples("fsd network info net"))
def info(
    network: Annotated[
        Path, typer.Argument(help="Directory of a network.", metavar="NETWORK", autocompletion=networks)
    ],
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
            activations[layer.described_activations] += 1
            one_value += layer.one_value is not None
            zero_preserving += layer.zero_preserving
            tasks.advance("reading layers", k + 1)
    record = network_record(loaded, network) | {
        "activations": dict(activations),
        "one_value_layers": one_value,
        "zero_preserving_layers": zero_preserving,
    }
    rows = [
        *network_rows(loaded, network),
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


def _activations(text: str) -> Activation | list[Activation]:
    """Parse --activation: one activation, or one per layer."""
    from fsd_inference.network.activation import parsed_activation  # noqa: PLC0415

    parsed = []
    for given in text.split(","):
        try:
            parsed.append(parsed_activation(given))
        except InputError as error:
            raise SettingError(f"--activation {given}: {error}") from None
    return parsed[0] if len(parsed) == 1 else parsed


def _save(out: Output, network: Network, output: Path, check: Check | None = None) -> None:
    check_output(output, directory=True)
    saved = save_network(out, network, output, check)
    out.result(network_record(saved, output), facts(network_rows(saved, output)))


def save_network(out: Output, network: Network, output: Path, check: Check | None = None) -> Network:
    """Write a network, with a progress bar, and return what was stored."""
    with out.progress() as tasks:
        tasks.begin("writing layers", len(network))
        network.save(output, lambda done: tasks.advance("writing layers", done), check=check)
    return type(network).load(output)


def network_record(network: Network, path: Path) -> dict[str, Any]:
    """Return what `--json` says of a stored network."""
    return {
        "path": str(path),
        "name": network.name,
        "layers": len(network),
        "widths": list(network.widths),
        "connections": network.connections,
        "bytes": _size(path),
        "digest": network.digest.hex(),
        "origin": network.origin,
        "check": network.checked and network.checked.to_json(),
        "labels": None if network.labels is None else network.labels.tolist(),
        "output": None if network.output is None else network.output.to_json(),
    }


def network_rows(network: Network, path: Path) -> list[tuple[str, object]]:
    """Return what people are shown of a stored network, as (name, value)."""
    from fsd_inference.network.importing.problems import listed  # noqa: PLC0415

    rows: list[tuple[str, object]] = [
        ("network", f"{path} ({network.name}, {bytes_text(_size(path))})"),
        ("layers", network.described_layers),
        ("connections", f"{network.connections:,}"),
        ("digest", network.digest.hex()),
    ]
    if network.origin is not None:
        rows.append(("origin", network.origin))
    if network.checked is not None:
        rows.append(("check", network.checked))
    if network.labels is not None:
        rows.append(("labels", listed(list(map(str, network.labels)))))
    if network.output is not None:
        rows.append(("output", str(network.output)))
    return rows


def _size(path: Path) -> int:
    folder = path if path.is_dir() else path.parent
    return sum(file.stat().st_size for file in folder.iterdir())
