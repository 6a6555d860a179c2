"""`fsd prices`: show and update the AWS prices that the cost model uses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fsd_inference.atomic import write_text
from fsd_inference.cli.console import Output, table
from fsd_inference.cli.options import Json, PricesFile, Region, examples
from fsd_inference.cli.outputs import check_output

app = typer.Typer(name="prices", help="AWS prices of the cost model: show, update.")


@app.command(epilog=examples("fsd prices show", "fsd prices show --prices eu-west-1.json"))
def show(region: Region = "us-east-1", prices: PricesFile = None, as_json: Json = False) -> None:
    """Show the prices of a region, with their date and sources."""
    from fsd_inference.cost.prices import load_prices  # noqa: PLC0415

    found = load_prices(region, prices)
    sources = list(dict.fromkeys(price.source for price in found.prices.values()))
    rows = [
        (name if index == 0 else "", f"{tier.start:,.0f}", f"{tier.usd:g}", price.unit, sources.index(price.source) + 1)
        for name, price in found.prices.items()
        for index, tier in enumerate(price.tiers)
    ]
    notes = "\n".join(f"source {number}: {source}" for number, source in enumerate(sources, 1))
    Output(as_json).result(
        found.to_json(), table(f"USD, {found}", ("price", "tier from (a month)", "USD", "per", "source"), rows), notes
    )


@app.command(epilog=examples("fsd prices update --region eu-west-1 -o eu-west-1.json"))
def update(
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    region: Annotated[str, typer.Option("--region", help="AWS region whose prices to fetch.")],
    endpoint_url: Annotated[
        str | None, typer.Option("--endpoint-url", help="Endpoint to use instead of the AWS Price List API.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fetch a region's prices from the AWS Price List API (needs AWS credentials), and write a file for --prices.

    This command was tested only with responses of the documented form, never against AWS itself, so check the result
    with: fsd prices show --prices FILE.
    """
    from fsd_inference.aws.clients import Clients  # noqa: PLC0415
    from fsd_inference.aws.price_list import PRICE_LIST_REGION, fetch_prices  # noqa: PLC0415
    from fsd_inference.cost.prices import parse_prices  # noqa: PLC0415

    out = Output(as_json)
    check_output(output)
    clients = Clients(endpoint_url, PRICE_LIST_REGION)
    try:
        found = fetch_prices(clients.pricing, region)
    finally:
        clients.close()
    text = json.dumps(found.to_json(), indent=1) + "\n"
    parse_prices(text, str(output))  # raises before writing, if the file could not be read back
    write_text(output, text)
    out.result({"path": str(output), **found.to_json()}, f"{output}: {len(found.prices)} {found}")
