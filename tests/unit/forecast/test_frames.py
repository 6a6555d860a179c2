"""Vectorised frames and requests of a step, compared with the frame-by-frame oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsd_inference.forecast.frames import ChannelLimits, EdgeArrays, object_step, queue_step, units
from fsd_inference.forecast.payloads import Payloads
from tests.support.frame_by_frame import extra_reads, publish_batches, step_frames
from tests.support.one_by_one.queue_model import deliveries_of
from tests.support.scenarios import random_plan


@given(st.integers(2, 14), st.integers(0, 10**6), st.sampled_from([100.0, 30_000.0, 400_000.0, 5e6]))
@settings(max_examples=60, deadline=None)
def test_arrays_say_what_frames_say(workers: int, seed: int, largest: float) -> None:
    _, plan, _ = random_plan(workers, 3, 8 * workers, seed)
    rng = np.random.default_rng(seed)
    sizes = tuple(np.floor(rng.random((len(exchange), 1)) ** 2 * largest) for exchange in plan.exchanges)
    payloads = Payloads((10,), sizes, 0.0, (1.0, 1.0), (1.0, 1.0))
    limits = ChannelLimits(ranks_a_topic=5)
    for layer, edges in enumerate(plan.exchanges):
        exchange = EdgeArrays.of(edges)
        queue = queue_step(exchange, sizes[layer][:, 0], limits)
        objects = object_step(exchange, sizes[layer][:, 0], limits)
        frames = {
            step.source: step.frames
            for step in step_frames(plan, payloads, limits.queue_frame_bytes)
            if step.layer == layer
        }
        assert set(queue.sent) == set(objects.sent) == set(frames)
        for source, expected in frames.items():
            sent, batches = queue.sent[source], publish_batches(expected, limits)
            assert sent.frames == len(expected)
            assert sent.wire_bytes == pytest.approx(sum(frame.size for frame in expected))
            assert sent.body_bytes == pytest.approx(sum(frame.text_size for frame in expected))
            assert sorted(batch.size for batch in sent.batches) == pytest.approx(sorted(map(sum, batches)))
            assert sum(batch.units for batch in sent.batches) == sum(units(sum(batch)) for batch in batches)
            assert sum(batch.message_units for batch in sent.batches) == sum(sum(map(units, one)) for one in batches)
            delivered = [(target, edge[0]) for batch in sent.batches for target, edge, _ in deliveries_of(queue, batch)]
            assert sorted(delivered) == sorted((target, source) for frame in expected for target in frame.targets)
        for step in step_frames(plan, payloads, limits.object_frame_bytes):
            if step.layer == layer:
                found = {reader.target: reader for reader in objects.readers(step.source)}
                assert set(found) == {target for frame in step.frames for target in frame.targets}
                for target, reader in found.items():
                    mine = [frame.size for frame in step.frames if target in frame.targets]
                    assert reader.size == pytest.approx(sum(mine))
                    assert reader.reads == 1 + extra_reads(step.frames, target, limits.first_bytes)
