"""A fake client of the AWS Price List API, with products in the documented form and the documented filters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PRODUCTS: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "data" / "price_list.json").read_text())


class PriceList:
    """A fake client whose `get_products` returns products in pages of two."""

    def __init__(self, products: list[dict[str, Any]]) -> None:
        self.products = products

    def get_products(self, **request: Any) -> dict[str, Any]:
        found = [product for product in self.products if self.fits(product, request)]
        start = int(request.get("NextToken", 0))
        page: dict[str, Any] = {
            "FormatVersion": "aws_v1",
            "PriceList": [json.dumps(each) for each in found[start : start + 2]],
        }
        return page | ({"NextToken": str(start + 2)} if start + 2 < len(found) else {})

    @staticmethod
    def fits(product: dict[str, Any], request: dict[str, Any]) -> bool:
        attributes = product["product"]["attributes"] | {"productFamily": product["product"]["productFamily"]}
        return product["serviceCode"] == request["ServiceCode"] and all(
            each["Type"] == "TERM_MATCH" and attributes.get(each["Field"]) == each["Value"]
            for each in request["Filters"]
        )
