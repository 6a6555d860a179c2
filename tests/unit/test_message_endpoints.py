"""Where the clients of topics and queues find their services, beside boto3 with the same configuration."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import pytest

from fsd_inference.aws.clients import Clients
from fsd_inference.errors import SettingError
from fsd_inference.store.bucket import Credentials

PEM = b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"
PROXY = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give the user keys and no other configuration."""
    for name in os.environ:
        if name.startswith("AWS_") or name.upper().endswith("_PROXY") or name == "REQUESTS_CA_BUNDLE":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.fixture
def made() -> Iterator[Mock]:
    """Record the endpoints that are described, instead of describing them to the extension."""
    with (
        patch("fsd_inference.aws.messaging.ServiceEndpoint") as endpoint,
        patch.multiple("fsd_inference.aws.clients", TopicClient=Mock(), QueueClient=Mock()),
    ):
        yield endpoint


def open_both(endpoint_url: str | None = None, region: str = "eu-west-1", **options: Any) -> None:
    clients = Clients(endpoint_url, region, **options)
    assert clients.topics is clients.topics
    assert clients.queues is clients.queues
    clients.close()


@pytest.mark.parametrize(
    ("region", "variant"),
    [
        *[(region, None) for region in ("us-east-1", "eu-central-2", "us-isob-east-1", "xx-new-9")],
        *itertools.product(
            ("us-west-2", "cn-north-1", "us-gov-west-1"), (None, "use_fips_endpoint", "use_dualstack_endpoint")
        ),
    ],
)
def test_services_are_where_boto3_finds_them(
    made: Mock, region: str, variant: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variant is not None:
        monkeypatch.setenv(f"AWS_{variant.upper()}", "true")
    clients = Clients(None, region)
    expected = [clients.sns.meta.endpoint_url, clients.sqs.meta.endpoint_url]
    clients.close()
    open_both(region=region)
    assert [call.args[:2] for call in made.call_args_list] == [(url, region) for url in expected]


def test_an_endpoint_that_aws_does_not_have_is_not_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_USE_DUALSTACK_ENDPOINT", "true")
    with pytest.raises(SettingError, match="no FIPS or dual-stack endpoint of sns in region 'us-isob-east-1'"):
        open_both(region="us-isob-east-1")


def test_keys_that_expire_are_asked_for_with_each_request(made: Mock) -> None:
    source = iter([Credentials("first", "s"), Credentials("second", "s", "token")])
    with patch.object(Clients, "credentials", partial(next, source)):
        open_both()
    keys = made.call_args.args[2]
    assert [keys(), keys()] == [("first", "s", None), ("second", "s", "token")]


@pytest.mark.parametrize(
    ("url", "variables", "proxy"),
    [
        (None, {}, None),
        (None, {"HTTPS_PROXY": PROXY}, PROXY),
        (None, {"https_proxy": PROXY}, PROXY),
        (None, {"HTTP_PROXY": PROXY}, None),
        (None, {"HTTPS_PROXY": PROXY, "NO_PROXY": ".amazonaws.com"}, None),
        (None, {"HTTPS_PROXY": PROXY, "NO_PROXY": "elsewhere"}, PROXY),
        ("http://services.example:4566", {"HTTP_PROXY": PROXY}, PROXY),
        ("http://services.example:4566", {"ALL_PROXY": PROXY, "HTTPS_PROXY": "http://127.0.0.1:1"}, PROXY),
        ("http://127.0.0.1:4566", {"HTTP_PROXY": PROXY, "HTTPS_PROXY": PROXY}, None),
        ("http://localhost:4566", {"HTTP_PROXY": PROXY}, None),
    ],
)
def test_proxies_are_those_of_the_environment(
    made: Mock, url: str | None, variables: dict[str, str], proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    open_both(url)
    assert [call.kwargs["proxy"] for call in made.call_args_list] == [proxy] * 2


@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_certificates_are_those_of_the_environment(
    made: Mock, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(name, str(tmp_path / "bundle.pem"))
    with pytest.raises(SettingError, match=r"bundle\.pem"):
        open_both()
    open_both("http://127.0.0.1:4566")  # nothing is encrypted there
    (tmp_path / "bundle.pem").write_bytes(PEM)
    open_both()
    assert [call.kwargs["certificates"] for call in made.call_args_list] == [b"", b"", PEM, PEM]


def test_a_proxy_that_is_none_is_a_setting_to_correct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "ftp://proxy")
    with pytest.raises(SettingError, match=r"requests to https://sns\.eu-west-1\..* cannot go through a proxy by ftp"):
        open_both()
