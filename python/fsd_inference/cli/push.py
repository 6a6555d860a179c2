"""`fsd push`: partition a network and upload its shards to a stack."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fsd_inference.cli.completion import networks
from fsd_inference.cli.console import Output, facts
from fsd_inference.cli.options import Json, Method, Profile, Stack, examples, use_profile
from fsd_inference.units import bytes_text, seconds_text

EXAMPLES = examples(
    "fsd push net --stack stack.json --workers 8 --partition hypergraph",
    "fsd push net-p8 --stack stack.json",
)


def push(
    network: Annotated[
        Path,
        typer.Argument(
            help="Directory of a network, or of shards written by `fsd partition`.",
            metavar="NETWORK|DIR",
            autocompletion=networks,
        ),
    ],
    stack: Stack,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Number of workers (P). Default: 1, or the number of shards in DIR."),
    ] = None,
    method: Annotated[
        Method | None, typer.Option("--partition", help="Method that assigns neurons to workers. Default: graph.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the partitioner.")] = 0,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Partition a network for P workers and upload the shards, except those that are already on the stack."""
    from fsd_inference.session import push as push_network  # noqa: PLC0415

    out = Output(as_json)
    use_profile(profile)
    with out.progress() as tasks:
        done = push_network(network, stack=stack, workers=workers, partition=method, seed=seed, progress=tasks)
    manifest = done.manifest
    rows = [
        ("network", f"{manifest.network_digest.hex()} ({manifest.layers} layers)"),
        ("plan", f"{manifest.plan_digest.hex()} for {manifest.workers} workers"),
        ("method", f"{manifest.method}, seed {manifest.seed}, {seconds_text(manifest.volumes.seconds)}"),
        ("sent", f"{bytes_text(done.sent_bytes)} ({bytes_text(done.found_bytes)} were already on the stack)"),
    ]
    record = {
        "network": manifest.network_digest.hex(),
        "plan": manifest.plan_digest.hex(),
        "workers": manifest.workers,
        "method": manifest.method,
        "seed": manifest.seed,
        "layers": manifest.layers,
        "sent_bytes": done.sent_bytes,
        "found_bytes": done.found_bytes,
    }
    out.result(record, facts(rows))
