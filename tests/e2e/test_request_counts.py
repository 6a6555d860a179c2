"""Request counts in a run's report, compared with those of a proxy in front of the services."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fsd_inference as fsd
from fsd_inference.aws.clients import Clients
from fsd_inference.aws.provision import StackSettings, create_stack, delete_stack
from fsd_inference.aws.stack import save_stack
from fsd_inference.chaos.proxy import Fault, FaultProxy, Request
from fsd_inference.stack_description import StackSpec
from tests.support.runs import same, session

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("aws_configuration")]

CHANNELS = ("queue", "object")
WORKERS = 4


@pytest.fixture(scope="module")
def stack(emulator_url: str) -> Iterator[StackSpec]:
    clients = Clients(emulator_url, emulated=True)
    made = create_stack(clients, StackSettings(name="fsd-counts", ranks=WORKERS, run_buckets=2, purge_settle_s=0.0))
    yield made
    delete_stack(clients, made)
    clients.close()


@pytest.fixture
def proxied(stack: StackSpec, proxy: FaultProxy, tmp_path: Path) -> Path:
    """The stack behind the proxy, which clients find by its endpoint and by the URLs of its queues."""

    def through(url: str) -> str:
        assert stack.endpoint_url is not None
        assert url.startswith(stack.endpoint_url)
        return url.replace(stack.endpoint_url, proxy.url)

    lanes = tuple(replace(lane, queue_urls=tuple(map(through, lane.queue_urls))) for lane in stack.lanes)
    path = tmp_path / "stack.json"
    save_stack(replace(stack, endpoint_url=proxy.url, lanes=lanes), path)
    return path


def infer(proxied: Path, proxy: FaultProxy, channel: str) -> tuple[fsd.RunReport, Counter[str]]:
    """Check the second answer of a session, and return its report and what the proxy saw of it."""
    network = fsd.random_network([96] * 6, connections=8, seed=5)
    x = np.random.default_rng(0).random((40, 96), np.float32)
    hook, proxy.hook = proxy.hook, None
    with (
        session(network, channel, proxied, workers=WORKERS, partition="block", branching=2, attempts=1) as distributed,
        fsd.Session(network) as alone,
    ):
        distributed.prepare()
        proxy.reset_counts()
        proxy.hook = hook
        answer = distributed.infer(x)
        seen = Counter(proxy.counts)
        assert same(answer.outputs, alone.infer(x).outputs)
    return answer.report, seen


@pytest.mark.parametrize("fault", [Fault(status=503), Fault(reset=True)], ids=["503", "reset"])
@pytest.mark.parametrize("channel", CHANNELS)
def test_a_run_reports_every_repeat(proxied: Path, proxy: FaultProxy, channel: str, fault: Fault) -> None:
    """The first and then every seventh request of each kind is broken: claims, leases, reports and polls among them."""
    broken: list[str] = []

    def hook(request: Request) -> Fault | None:
        if request.number % 7:
            return None
        broken.append(request.kind)
        return fault

    proxy.hook = hook
    report, seen = infer(proxied, proxy, channel)
    assert report.usage.requests == seen
    assert report.usage.retries == len(broken)
    assert set(broken) == set(seen)


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_run_reports_every_request_and_its_ranks_do_so_by_layer(
    proxied: Path, proxy: FaultProxy, channel: str
) -> None:
    report, seen = infer(proxied, proxy, channel)
    assert report.usage.requests == seen
    assert report.usage.retries == 0
    for rank in report.ranks:
        requests = sum(rank.usage.requests.values())
        in_layers = [layer.requests for layer in rank.layers]
        assert rank.load_requests >= 4  # claim, manifest, shard, input
        # One publication or more a layer; a layer may show none, as what it needs can come with the layer before.
        assert sum(in_layers) >= len(in_layers) - 1
        assert requests - rank.load_requests - sum(in_layers) >= 2  # result, report
        gathered = rank.rank != 0
        assert sum(layer.frames for layer in rank.layers) + gathered == rank.usage.frames
        size = sum(layer.bytes for layer in rank.layers)
        assert (size < rank.usage.wire_bytes) == gathered
        assert rank.sent_to is not None
        targets = [sent.target for sent in rank.sent_to]
        assert targets == sorted({*targets} & {*range(WORKERS)} - {rank.rank})
        assert sum(sent.bytes for sent in rank.sent_to) >= rank.usage.wire_bytes  # some have several targets
        assert rank.layers[-1].frames == rank.layers[-1].bytes == 0
    ranks = [rank.usage for rank in report.ranks]
    assert report.usage.wire_bytes == sum(usage.wire_bytes for usage in ranks)
    assert report.usage.body_bytes == sum(usage.body_bytes for usage in ranks)
