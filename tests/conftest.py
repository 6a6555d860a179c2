"""Fixtures and hooks shared by all tests: hypothesis profiles, the summary of skipped tests, and the emulated AWS.

The emulator is one process for the test session (one per worker with pytest-xdist); each test gets its own bucket.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings
from mypy_boto3_s3 import S3Client

from fsd_inference.aws.clients import Clients
from fsd_inference.aws.emulator import running_emulator
from fsd_inference.chaos.proxy import FaultProxy
from tests.support.aws_configuration import no_aws_configuration
from tests.support.skips import summarize_skips

# CI draws the same examples each time; at hand every run draws others. A busy machine is no reason to fail.
settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    summarize_skips(terminalreporter)


@pytest.fixture(scope="session")
def emulator_url() -> Iterator[str]:
    with running_emulator() as emulator:
        yield emulator.endpoint_url


@pytest.fixture(scope="session")
def queue_clients(emulator_url: str) -> Iterator[Clients]:
    clients = Clients(emulator_url, emulated=True)
    yield clients
    clients.close()


@pytest.fixture(scope="session")
def s3_client(queue_clients: Clients) -> S3Client:
    return queue_clients.s3


@pytest.fixture
def aws_configuration() -> Iterator[pytest.MonkeyPatch]:
    """Take the user's AWS configuration away, and set another one with what is returned."""
    with no_aws_configuration() as patch:
        yield patch


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
