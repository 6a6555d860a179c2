"""Prices from the AWS Price List API, with responses in its documented form."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from fsd_inference.aws.price_list import _QUERIES, INSTANCES, fetch_prices
from fsd_inference.cost.prices import UNITS, load_prices, parse_prices
from fsd_inference.errors import SettingError, StackError
from tests.support.price_list import PRODUCTS, PriceList


def without(name: str) -> list[dict[str, Any]]:
    query = _QUERIES[name]
    return [
        p
        for p in PRODUCTS
        if not PriceList.fits(
            p,
            {
                "ServiceCode": query.service,
                "Filters": [
                    {"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in query.filters.items()
                ],
            },
        )
    ]


def test_all_prices_are_found_and_equal_the_packages() -> None:
    found = fetch_prices(PriceList(PRODUCTS), "us-east-1")
    ours = load_prices("us-east-1")
    assert set(found.prices) == {*UNITS, *(f"ec2.{instance}" for instance in INSTANCES)}
    for name, price in found.prices.items():
        if name not in {"sns.delivery", "s3.storage"}:  # which have tiers there
            assert [tier.start for tier in price.tiers] == [tier.start for tier in ours[name].tiers], name
        assert price.tiers[0].usd == pytest.approx(ours[name].tiers[0].usd, rel=1e-4), name
        assert price.source.startswith("AWS Price List API")
    assert [tier.start for tier in found["sns.delivery"].tiers] == [0, 10240]
    assert parse_prices(json.dumps(found.to_json()), "what was written") == found


def test_other_regions_have_a_prefix_and_may_lack_express() -> None:
    text = json.dumps([p for p in PRODUCTS if "XZ" not in p["product"]["attributes"]["usagetype"]])
    text = text.replace('"us-east-1"', '"eu-west-1"').replace('"usagetype": "', '"usagetype": "EU-')
    found = fetch_prices(PriceList(json.loads(text)), "eu-west-1")
    assert found.region == "eu-west-1"
    assert "s3express.put" not in found.prices
    assert found["s3.put"].usd(1) == pytest.approx(5e-6)


def test_a_price_that_is_not_listed_is_named() -> None:
    with pytest.raises(SettingError, match=r"0 products for 'sqs.request' in region 'us-east-1'"):
        fetch_prices(PriceList(without("sqs.request")), "us-east-1")
    with pytest.raises(SettingError, match=r"0 products for 'lambda.x86_64.gb_second' in region 'mars-1'"):
        fetch_prices(PriceList(PRODUCTS), "mars-1")


def test_two_different_prices_are_no_guess() -> None:
    double = json.loads(json.dumps(PRODUCTS).replace("0.0000002000", "0.0000003000"))
    with pytest.raises(SettingError, match=r"2 products for 'lambda.request'"):
        fetch_prices(PriceList([*PRODUCTS, *double]), "us-east-1")


def test_another_currency_is_an_error() -> None:
    yuan = json.loads(json.dumps(PRODUCTS).replace('"USD"', '"CNY"'))
    with pytest.raises(SettingError, match=r"no price in dollars for 'lambda.x86_64.gb_second'"):
        fetch_prices(PriceList(yuan), "us-east-1")


def changed(change: Callable[[dict[str, Any]], object]) -> list[dict[str, Any]]:
    """Return the products with the first one's only term changed."""
    products: list[dict[str, Any]] = json.loads(json.dumps(PRODUCTS))
    (term,) = products[0]["terms"]["OnDemand"].values()
    change(term)
    return products


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda term: term["priceDimensions"].popitem(), "leave a gap or overlap"),
        (lambda term: next(iter(term["priceDimensions"].values())).update(endRange="5"), "leave a gap or overlap"),
        (lambda term: next(iter(term["priceDimensions"].values())).update(pricePerUnit={"USD": "NaN"}), "no price in"),
    ],
)
def test_prices_that_make_no_sense_are_no_guess(change: Callable[[dict[str, Any]], object], said: str) -> None:
    with pytest.raises(SettingError, match=r"'lambda.x86_64.gb_second'") as caught:
        fetch_prices(PriceList(changed(change)), "us-east-1")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda term: term.pop("priceDimensions"),
        lambda term: term.update(priceDimensions=[]),
        lambda term: next(iter(term["priceDimensions"].values())).update(beginRange="many"),
        lambda term: next(iter(term["priceDimensions"].values())).pop("pricePerUnit"),
    ],
)
def test_an_answer_of_another_shape_is_a_stack_error(change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(StackError, match=r"answer for 'lambda.x86_64.gb_second' is not as documented"):
        fetch_prices(PriceList(changed(change)), "us-east-1")


def test_an_answer_that_never_ends_is_a_stack_error() -> None:
    class Endless(PriceList):
        def get_products(self, **request: Any) -> dict[str, Any]:
            return super().get_products(**request) | {"NextToken": "0"}

    with pytest.raises(StackError, match="too many products of AWSLambda"):
        fetch_prices(Endless(PRODUCTS), "us-east-1")
    with pytest.raises(StackError, match="is not as documented"):
        fetch_prices(NoJson(PRODUCTS), "us-east-1")


class NoJson(PriceList):
    def get_products(self, **request: Any) -> dict[str, Any]:
        return {"PriceList": ["{"]}


@pytest.mark.usefixtures("aws_configuration")
def test_requests_and_answers_fit_the_sdk() -> None:
    """botocore's own model of the API checks what is asked and what is answered here."""
    client = boto3.client("pricing", region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
    source = PriceList(PRODUCTS)

    class Recorder:
        def get_products(self, **request: Any) -> dict[str, Any]:
            answer = source.get_products(**request)
            with Stubber(client) as stub:
                stub.add_response("get_products", answer, request)
                got: dict[str, Any] = client.get_products(**request)
            return got

    assert fetch_prices(Recorder(), "us-east-1") == fetch_prices(source, "us-east-1")


@pytest.mark.usefixtures("aws_configuration")
def test_a_refusal_is_a_stack_error() -> None:
    client = boto3.client("pricing", region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
    with Stubber(client) as stub:
        stub.add_client_error("get_products", "AccessDeniedException", "no", 400)
        with pytest.raises(StackError, match=r"cannot read the AWS Price List: .*AccessDenied"):
            fetch_prices(client, "us-east-1")
