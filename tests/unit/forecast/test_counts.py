"""Predicted counts: frame sizes against the kernels, packing against the channels, totals against runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.channels.parts import pack_parts
from fsd_inference.channels.queue import QueueSettings, _Message, pack
from fsd_inference.config import RunSettings
from fsd_inference.engine.inputs import encode_input
from fsd_inference.engine.serial import serial_state
from fsd_inference.errors import InputError, SettingError
from fsd_inference.forecast import sampling
from fsd_inference.forecast.counts import count_lane, count_usage
from fsd_inference.forecast.frames import ChannelLimits
from fsd_inference.forecast.payloads import Payloads
from fsd_inference.forecast.receive_model import ReceiveModel
from fsd_inference.forecast.sampling import sample_payloads
from fsd_inference.kernels import encode_block
from fsd_inference.partitioning import Edge, ExchangePlan, load_plan, partition
from fsd_inference.store.s3 import _spans
from fsd_inference.usage import Usage
from tests.support.frame_by_frame import FrameSize, cut_frames, extra_reads, publish_batches
from tests.support.one_by_one.fitting import ObservedRun, fit_receive_model

NETWORK = fsd.random_network([96] * 6, connections=6, seed=4)
X = sparse.csr_array(np.random.default_rng(0).standard_normal((60, 96), np.float32))
FINE = ChannelLimits(message_bytes=4096, object_frame_bytes=2000, first_bytes=3000)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    partition(NETWORK, folder / "p3", workers=3, method="block")
    return folder / "p3"


@pytest.fixture(scope="module")
def plan(shards: Path) -> ExchangePlan:
    return load_plan(shards)[1]


def payloads(plan: ExchangePlan, **more: Any) -> Payloads:
    (found,) = sample_payloads(NETWORK, [plan], X, **{"samples": 60, **more})
    return found


@pytest.mark.parametrize("micro_batches", [1, 4])
@pytest.mark.parametrize("output", ["rows", "argmax"])
def test_frames_are_those_of_a_run_where_all_inputs_are_known(
    shards: Path, plan: ExchangePlan, micro_batches: int, output: str
) -> None:
    """The sample is the batch: every frame is foreseen to the byte, over any channel."""
    tuning = fsd.Tuning(micro_batches=micro_batches)
    with fsd.Session(shards, channel="local", tuning=tuning, output=output) as session:
        counted = session.infer(X).report.usage
    settings = RunSettings(workers=3, micro_batches=micro_batches, output=output)
    foreseen = count_usage(plan, payloads(plan, micro_batches=micro_batches), settings, "object")
    assert foreseen.frames == counted.frames
    assert foreseen.wire_bytes == counted.wire_bytes
    assert (
        count_usage(plan, payloads(plan, micro_batches=micro_batches), settings, "queue").wire_bytes
        == counted.wire_bytes
    )


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_frames_of_a_network_whose_samples_die_are_those_of_a_run(tmp_path: Path, micro_batches: int) -> None:
    """Blocks refer to the live samples of the layer before, which the sample must follow from layer to layer."""
    network, x = fsd.graph_challenge(1024, 8), fsd.digits(1024, 150)
    partition(network, tmp_path / "shards", workers=3, method="block")
    with fsd.Session(tmp_path / "shards", channel="local", tuning=fsd.Tuning(micro_batches=micro_batches)) as session:
        counted = session.infer(x).report.usage
    plan = load_plan(tmp_path / "shards")[1]
    (found,) = sample_payloads(network, [plan], x, samples=x.shape[0], micro_batches=micro_batches)
    assert 0 < min(found.live) < max(found.live) < 1
    settings = RunSettings(workers=3, micro_batches=micro_batches)
    assert count_usage(plan, found, settings, "object").wire_bytes == counted.wire_bytes


def test_a_sample_tells_the_size_of_a_larger_batch(plan: ExchangePlan) -> None:
    settings = RunSettings(workers=3)
    whole = count_usage(plan, payloads(plan), settings, "object").wire_bytes
    part = count_usage(plan, payloads(plan, most_samples=20), settings, "object").wire_bytes
    assert part == pytest.approx(whole, rel=0.15)
    few_edges = count_usage(plan, payloads(plan, most_edges=3), settings, "object").wire_bytes
    assert few_edges == pytest.approx(whole, rel=0.2)


def test_samples_and_densities_are_told_by_layer(plan: ExchangePlan) -> None:
    found = payloads(plan)
    assert len(found.live) == len(found.density) == len(found.exchanges) == 4
    assert all(0 < density <= live <= 1 for live, density in zip(found.live, found.density, strict=True))


def test_what_dies_is_not_sent() -> None:
    network = fsd.graph_challenge(1024, 3)
    x = sparse.csr_array(np.eye(40, 1024, dtype=np.float32))  # one feature each: nothing survives the bias
    plan = ExchangePlan(1, ((), ()))
    (found,) = sample_payloads(network, [plan], x, samples=1000)
    assert found.live == found.density == (0.0, 0.0)
    assert [sizes.shape for sizes in found.exchanges] == [(0, 1), (0, 1)]


def test_plans_share_one_push(plan: ExchangePlan) -> None:
    both = sample_payloads(NETWORK, [plan, plan], X, samples=500, micro_batches=3)
    for one, other in zip(both[0].exchanges, both[1].exchanges, strict=True):
        np.testing.assert_array_equal(one, other)
    assert both[0].samples == (167, 167, 166)
    (alone,) = sample_payloads(NETWORK, [plan], X, samples=500, micro_batches=3)
    np.testing.assert_array_equal(alone.exchanges[0], both[0].exchanges[0])


@pytest.mark.parametrize(
    ("network", "x", "within"),
    [
        (fsd.random_network([1024] * 9, connections=16), fsd.digits(1024, 20), 0.06),
        (fsd.graph_challenge(1024, 20), fsd.digits(1024, 200), 0.0),  # while it fills up, each layer packs otherwise
    ],
    ids=["noise", "benchmark"],
)
def test_rows_that_carry_the_same_again_are_not_packed_again(
    network: fsd.Network, x: sparse.csr_array, within: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = Mock(wraps=encode_block)
    monkeypatch.setattr(sampling, "encode_block", pack)
    rows = np.sort(np.random.default_rng(0).choice(1024, 200, replace=False)).astype(np.int32)
    one = Edge(0, (1,), rows)
    others = ExchangePlan(2, tuple((Edge(0, (1,), rows),) for _ in network.widths[1:-1]))
    (each,) = sample_payloads(network, [others], x, samples=1000)
    every = pack.call_count
    (found,) = sample_payloads(network, [ExchangePlan(2, ((one,),) * (len(network) - 1))], x, samples=1000)
    assert pack.call_count - every < every
    sizes, expected = (np.concatenate(one.exchanges) for one in (found, each))
    np.testing.assert_allclose(sizes, expected, rtol=within)


targets = st.sets(st.integers(0, 250), min_size=1, max_size=5)
sizes = st.lists(st.tuples(st.integers(1, 3000), targets), min_size=1, max_size=30)


@given(sizes)
def test_batches_are_packed_as_the_channel_packs(frames: list[tuple[int, set[int]]]) -> None:
    expected: list[list[int]] = []
    for topic in range(3):
        messages = [
            _Message.to([str(target) for target in sorted(targets) if target // 100 == topic], bytes(size))
            for size, targets in frames
            if any(target // 100 == topic for target in targets)
        ]
        expected += [[message.size for message in batch] for batch in pack(messages, 8192)]
    found = publish_batches(
        [FrameSize(tuple(sorted(targets)), size) for size, targets in frames], ChannelLimits(message_bytes=8192)
    )
    assert sorted(map(sorted, found)) == sorted(map(sorted, expected))


@given(sizes, st.integers(16, 5000), st.integers(0, 5))
def test_reads_beyond_the_first_are_those_of_the_channel(
    frames: list[tuple[int, set[int]]], first_bytes: int, stretch: int
) -> None:
    scaled = [(size << (4 * (stretch % 3)), tuple(sorted(targets))) for size, targets in frames]
    packed = pack_parts([(targets, bytes(size)) for size, targets in scaled])
    target = scaled[0][1][0]
    expected = channel_reads(packed, [(size, targets) for size, targets in scaled], target, first_bytes)
    sized = [FrameSize(targets, size) for size, targets in scaled]
    assert extra_reads(sized, target, first_bytes) == expected


def channel_reads(packed: bytes, frames: Sequence[tuple[int, tuple[int, ...]]], target: int, first_bytes: int) -> int:
    """What `ObjectChannel._read_parts` asks for, told slowly."""
    start = len(packed) - sum(size for size, _ in frames)
    head = max(min(first_bytes, len(packed)), start)
    ranges = []
    position = start
    for size, targets in frames:
        position += size
        if target in targets and position > head:
            begin = max(position - size, head)
            ranges.append((begin, position - begin))
    return (start > first_bytes) + len(_spans(ranges))


@given(st.integers(0, 10**6), st.integers(200, 300_000))
def test_frames_hold_the_payload_and_no_more(payload: int, limit: int) -> None:
    frames = cut_frames(0, 3, (1, 200), payload, limit)
    assert all(frame.size <= limit for frame in frames)
    assert sum(frame.size - 34 for frame in frames) == payload
    assert len(frames) == max(1, -(-payload // (limit - 34)))


def test_large_frames_are_cut_and_read_in_pieces(plan: ExchangePlan) -> None:
    settings = RunSettings(workers=3)
    coarse, fine = (count_usage(plan, payloads(plan), settings, "object", limits=limits) for limits in (None, FINE))
    assert fine.frames > coarse.frames
    assert fine.requests["s3.get"] > coarse.requests["s3.get"]
    assert fine.requests["s3.put"] == coarse.requests["s3.put"]
    queue_coarse, queue_fine = (
        count_usage(plan, payloads(plan), settings, "queue", limits=limits) for limits in (None, FINE)
    )
    assert queue_fine.requests["sns.publish"] > queue_coarse.requests["sns.publish"]
    assert FINE.queue_frame_bytes == QueueSettings().message_bytes // 64 * 3 // 4 - 1024 * 3 // 4


@pytest.mark.parametrize("channel", ["queue", "object"])
def test_counts_fit_each_other(plan: ExchangePlan, channel: str) -> None:
    usage = count_usage(plan, payloads(plan, micro_batches=2), RunSettings(workers=3, micro_batches=2), channel)
    assert all(usage.billed_units[kind] >= count > 0 for kind, count in usage.requests.items() if kind != "s3.get")
    assert usage.billed_units["sns.publish.messages"] >= usage.billed_units["sns.publish"]
    assert usage.received_bytes >= usage.body_bytes >= usage.wire_bytes > 0


@pytest.mark.parametrize("channel", ["queue", "object"])
def test_more_micro_batches_ask_for_more(plan: ExchangePlan, channel: str) -> None:
    totals = [
        count_usage(
            plan, payloads(plan, micro_batches=m), RunSettings(workers=3, micro_batches=m), channel
        ).requests.total()
        for m in (1, 2, 4, 8)
    ]
    assert totals == sorted(set(totals))


def test_a_single_function_exchanges_nothing() -> None:
    plan = ExchangePlan(1, ((),) * 4)
    usage = count_usage(plan, payloads(plan), RunSettings(), "serial")
    assert dict(usage.requests) == {"s3.put": 4, "s3.get": 5, "s3.list": 1, "s3.delete": 1}
    assert (usage.frames, usage.received_bytes) == (0, 0)


def test_a_long_input_takes_a_rank_another_read(plan: ExchangePlan) -> None:
    found = payloads(plan)
    longer = Payloads(found.samples, found.exchanges, 10e6, found.live, found.density)
    settings = RunSettings(workers=3)
    difference = count_usage(plan, longer, settings, "object") - count_usage(plan, found, settings, "object")
    assert dict(difference.requests) == {"s3.get": 3}


def test_a_poll_finds_so_many_messages_at_most() -> None:
    model = ReceiveModel(messages_a_poll=9.0)
    assert model.polls_before(3, 900, 0.0) == pytest.approx(100)
    assert model.polls_before(7, 7, 0.0) > model.polls_before(1, 1, 0.0) > 0
    assert model.polls_before(7, 7, 1e9) == 7
    assert model.waiting_s(1) == 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"x": X[:0]}, "at least one sample"),
        ({"x": X[:, :5]}, "must have 96 features"),
        ({"samples": 0}, "at least 1 sample"),
    ],
)
def test_what_cannot_be_sampled_is_an_error(plan: ExchangePlan, wrong: dict[str, Any], said: str) -> None:
    arguments: dict[str, Any] = {"x": X, "samples": 60, **wrong}
    x = arguments.pop("x")
    with pytest.raises((InputError, SettingError), match=said):
        sample_payloads(NETWORK, [plan], x, **arguments)


def test_sizes_of_another_plan_are_refused(plan: ExchangePlan) -> None:
    other = ExchangePlan(3, plan.exchanges[:2])
    with pytest.raises(SettingError, match="predicted for another plan"):
        count_usage(other, payloads(plan), RunSettings(workers=3), "queue")
    with pytest.raises(SettingError, match="settings are for 4 workers, but the plan has 3"):
        count_usage(plan, payloads(plan), RunSettings(workers=4), "queue")


def made_up(plan: ExchangePlan, channel: str, micro_batches: int, model: ReceiveModel) -> ObservedRun:
    """A run whose counts are those that a receive model predicts."""
    settings = RunSettings(workers=3, micro_batches=micro_batches)
    usage = count_usage(plan, payloads(plan, micro_batches=micro_batches), settings, channel, receiving=model)
    return ObservedRun(report(channel, usage, launch_s=2 * model.start_s), plan, micro_batches)


def report(channel: str, usage: Usage, launch_s: float) -> fsd.RunReport:
    return fsd.RunReport(
        channel=channel,
        workers=3,
        samples=60,
        layers=6,
        connections=1,
        wall_s=1.0,
        launch_s=launch_s,
        load_s=0.0,
        compute_s=0.0,
        peak_rss_bytes=0,
        row_sends=0,
        usage=usage,
        attempts=1,
        simd="portable",
    )


def test_a_receive_model_is_fitted_on_runs(plan: ExchangePlan) -> None:
    busy = ReceiveModel(polls=3.0, messages_a_poll=2.0, misses=3.0, start_s=0.0)
    runs = [made_up(plan, channel, m, busy) for channel in ("queue", "object") for m in (1, 4, 16)]
    learnt = fit_receive_model(runs)
    assert learnt.start_s == 0
    for m in (1, 4, 16):
        assert learnt.polls_before(2, 2 * m, 0.0) == pytest.approx(busy.polls_before(2, 2 * m, 0.0), rel=0.1)
    assert learnt.misses_before(2) == pytest.approx(busy.misses_before(2), rel=0.15)
    assert fit_receive_model(runs[:3]).misses == ReceiveModel().misses  # no run over object: the default stays


def test_a_fit_needs_runs() -> None:
    run = ObservedRun(report("queue", Usage(), 0.0), ExchangePlan(1, ((),)), 1)
    with pytest.raises(SettingError, match="at least 2 workers"):
        fit_receive_model([run])


def test_the_input_object_is_as_long_as_foreseen(plan: ExchangePlan) -> None:
    assert payloads(plan).input_bytes == len(encode_input(serial_state(X), (60,)))


@pytest.mark.parametrize(("kept_s", "renewals"), [(0.0, 0), (9.9, 0), (10.0, 1), (905.0, 90)])
@pytest.mark.parametrize("purged", [0, 3])
def test_a_lane_that_is_kept_is_renewed_every_ten_seconds(kept_s: float, renewals: int, purged: int) -> None:
    more = count_lane(purged, kept_s).requests - count_lane(purged).requests
    assert more["s3.put"] == more.total() == renewals
