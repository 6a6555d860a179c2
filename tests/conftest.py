"""The emulated AWS that tests share: one process for the session, a bucket for each that asks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import boto3
import pytest
from mypy_boto3_s3 import S3Client

from fsd_inference.aws.clients import Clients
from fsd_inference.aws.emulator import running_emulator
from tests.support.proxy import FaultProxy


@pytest.fixture(scope="session")
def emulator_url() -> Iterator[str]:
    with running_emulator() as emulator:
        yield emulator.endpoint_url


@pytest.fixture(scope="session")
def s3_client(emulator_url: str) -> S3Client:
    return boto3.client(
        "s3",
        endpoint_url=emulator_url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


@pytest.fixture(scope="session")
def queue_clients(emulator_url: str) -> Iterator[Clients]:
    clients = Clients(emulator_url)
    yield clients
    clients.close()


_numbers = itertools.count()


@pytest.fixture(scope="session")
def new_bucket(s3_client: S3Client) -> Callable[[], str]:
    def make() -> str:
        name = f"bucket-{next(_numbers)}"
        s3_client.create_bucket(Bucket=name)
        return name

    return make


@pytest.fixture
def proxy(emulator_url: str) -> Iterator[FaultProxy]:
    with FaultProxy(emulator_url) as running:
        yield running
