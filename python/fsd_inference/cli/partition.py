"""`fsd partition`: partition a network for P workers and write their shards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fsd_inference.cli.completion import networks
from fsd_inference.cli.console import Output, facts, table
from fsd_inference.cli.options import Json, Method, examples
from fsd_inference.cli.outputs import check_distinct, check_output
from fsd_inference.units import bytes_text, seconds_text

if TYPE_CHECKING:
    from fsd_inference.partitioning import Manifest

EXAMPLES = examples("fsd partition net --workers 8 --method hypergraph -o net-p8")

_MOST_EXCHANGES = 8
"""Number of exchanges in the printed table; --json lists all."""


def partition(
    network: Annotated[
        Path, typer.Argument(help="Directory of a network.", metavar="NETWORK", autocompletion=networks)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory to write the shards to.")],
    workers: Annotated[int, typer.Option("--workers", min=1, help="Number of workers (P).")],
    method: Annotated[
        Method,
        typer.Option("--method", help="Method that assigns neurons to workers; hypergraph exchanges the fewest rows."),
    ] = "hypergraph",
    as_json: Json = False,
) -> None:
    """Assign the neurons of each layer to P workers, and write a shard for each worker."""
    from fsd_inference import partitioning  # noqa: PLC0415
    from fsd_inference.network import Network  # noqa: PLC0415

    out = Output(as_json)
    check_output(output, directory=True)
    check_distinct(NETWORK=network, output=output)
    loaded = Network.load(network)
    with out.progress() as tasks:
        tasks.begin("partitioning", None)
        manifest = partitioning.partition(loaded, output, workers=workers, method=method)
    out.result(_record(manifest, output), *_tables(manifest, output))


def _record(manifest: Manifest, output: Path) -> dict[str, Any]:
    volumes = manifest.volumes
    return {
        "path": str(output),
        "workers": manifest.workers,
        "method": manifest.method,
        "layers": manifest.layers,
        "row_sends": volumes.row_sends,
        "imbalance": volumes.imbalance,
        "seconds": volumes.seconds,
        "largest_sender": list(volumes.largest_sender),
        "largest_receiver": list(volumes.largest_receiver),
        "shard_bytes": [entry.size for entry in manifest.shards],
    }


def _tables(manifest: Manifest, output: Path) -> list[Any]:
    volumes = manifest.volumes
    sizes = [entry.size for entry in manifest.shards]
    exchanges = len(volumes.largest_sender)
    summary = facts(
        [
            ("shards", f"{output} ({manifest.workers} of {bytes_text(min(sizes))} to {bytes_text(max(sizes))})"),
            ("method", f"{manifest.method}, {seconds_text(volumes.seconds)}"),
            ("row_sends", f"{volumes.row_sends:,} over {exchanges} exchanges"),
            ("imbalance", f"{volumes.imbalance:.3f} x the mean load, in the worst layer"),
        ]
    )
    if not volumes.row_sends:
        return [summary]
    busiest = sorted(range(exchanges), key=lambda k: -max(volumes.largest_sender[k], volumes.largest_receiver[k]))
    title = "Most rows that one worker sends and receives" + (
        f", the {_MOST_EXCHANGES} busiest of {exchanges} exchanges" if exchanges > _MOST_EXCHANGES else ""
    )
    rows = (
        (f"{k} to {k + 1}", f"{volumes.largest_sender[k]:,}", f"{volumes.largest_receiver[k]:,}")
        for k in sorted(busiest[:_MOST_EXCHANGES])
    )
    return [summary, table(title, ("layers", "largest sender", "largest receiver"), rows)]
