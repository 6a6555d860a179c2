"""Number formats of the exchange: their rounding, which rows of a run it changes, what it refuses, who is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.config import RunSettings
from fsd_inference.errors import NumericError, SettingError
from fsd_inference.forecast.counts import count_usage
from fsd_inference.forecast.sampling import sample_payloads
from fsd_inference.kernels import round_to_wire
from fsd_inference.partitioning import load_plan, partition

NEURONS, WORKERS = 48, 3
ROUNDED = ("bfloat16", "float16")

Floats = NDArray[np.float32]


def rounded(x: Floats, wire: str) -> Floats:
    """Round with NumPy's float16, or with the integers that bfloat16 is the upper half of; no negative zeros."""
    if wire == "float16":
        return x.astype(np.float16).astype(np.float32) + np.float32(0)
    if wire == "bfloat16":
        bits = x.view(np.uint32).astype(np.uint64)
        upper, lower = bits >> 16, bits & 0xFFFF
        upper += (lower > 0x8000) | ((lower == 0x8000) & (upper % 2 == 1))
        return (upper << 16).astype(np.uint32).view(np.float32) + np.float32(0)
    return x


def copying() -> fsd.Network:
    """A network that copies its inputs twice, the second time into neurons of which some are of other ranks."""
    order = np.random.default_rng(5).permutation(NEURONS)
    shuffle = sparse.csr_array((np.ones(NEURONS, np.float32), (np.arange(NEURONS), order)))
    return fsd.Network.from_matrices(
        [sparse.eye_array(NEURONS, dtype=np.float32, format="csr"), shuffle], activations="identity"
    )


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wire") / "shards"
    partition(copying(), folder, workers=WORKERS, method="block")
    return folder


def samples() -> Floats:
    """Values of all sizes that float16 holds, its subnormal numbers and what rounds to zero included."""
    rng = np.random.default_rng(2)
    x = (rng.standard_normal((20, NEURONS)) * 2.0 ** rng.integers(-30, 15, (20, NEURONS))).astype(np.float32)
    x[3] = 0
    return x


def crossing(shards: Path) -> NDArray[np.bool_]:
    """Which outputs are copies of rows that another rank sent."""
    owners = load_plan(shards)[0].owners
    inputs = copying().layer(1).weights.indices
    return np.asarray(owners[0][inputs] != owners[1])


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40))
def test_values_are_rounded_to_the_nearest_even(values: list[float]) -> None:
    x = np.array(values, np.float32)
    for wire, largest in (("bfloat16", 3.3895e38), ("float16", 65519.0)):
        held = x[np.abs(x) < largest]
        found = round_to_wire(held, wire)
        np.testing.assert_array_equal(found.view(np.uint32), rounded(held, wire).view(np.uint32))
        error = np.abs(found.astype(np.float64) - held)
        magnitude = np.abs(held.astype(np.float64))
        if wire == "float16":
            assert (error <= np.maximum(magnitude * 2.0**-11, 2.0**-25)).all()
        else:
            assert (error <= np.maximum(magnitude * 2.0**-8, 2.0**-134)).all()


@pytest.mark.parametrize("wire", ["float32", *ROUNDED])
@pytest.mark.parametrize("micro_batches", [1, 3])
def test_what_is_sent_is_rounded_and_own_rows_are_not(shards: Path, wire: str, micro_batches: int) -> None:
    x, sent = samples(), crossing(shards)
    tuning = fsd.Tuning(micro_batches=micro_batches)
    with fsd.Session(shards, channel="local", wire=wire, tuning=tuning) as session:
        found = session.infer(x, outputs="dense").outputs
    assert isinstance(found, np.ndarray)
    expected = x[:, copying().layer(1).weights.indices]
    assert 0 < np.count_nonzero(sent) < NEURONS
    np.testing.assert_array_equal(found[:, ~sent], expected[:, ~sent])
    np.testing.assert_array_equal(found[:, sent], rounded(expected[:, sent], wire))
    assert (wire == "float32") == np.array_equal(found, expected)


def test_fewer_bytes_are_sent_and_foreseen(shards: Path) -> None:
    """Inputs are copied without error before they are sent, so the sizes are foreseen to the byte."""
    x = np.abs(np.random.default_rng(7).standard_normal((400, NEURONS), np.float32))
    plan = load_plan(shards)[1]
    sent = {}
    for wire in ("float32", *ROUNDED):
        with fsd.Session(shards, channel="local", wire=wire) as session:
            sent[wire] = session.infer(x).report.usage.wire_bytes
        (payloads,) = sample_payloads(copying(), [plan], sparse.csr_array(x), samples=len(x), wire=wire)
        settings = RunSettings(workers=WORKERS, wire=wire)
        assert count_usage(plan, payloads, settings, "object").wire_bytes == sent[wire]
    assert sent["bfloat16"] < 0.45 * sent["float32"]
    assert sent["bfloat16"] < sent["float16"] < 0.55 * sent["float32"]


@pytest.mark.parametrize(("wire", "value"), [("float16", -65520.0), ("bfloat16", 3.3962e38)])
def test_a_value_that_the_format_cannot_hold_ends_the_run(shards: Path, wire: str, value: float) -> None:
    x, inputs, sent = samples(), copying().layer(1).weights.indices, crossing(shards)
    crosses, stays = int(inputs[sent][0]), int(inputs[~sent][0])
    rank = int(load_plan(shards)[0].owners[0][crosses])
    x[4, stays] = value
    once = fsd.FailurePolicy(attempts=1)
    with fsd.Session(shards, channel="local", wire=wire, failures=once) as session:
        assert session.infer(x).report.error is None
        x[5, crosses] = value
        with pytest.raises(NumericError) as caught:
            session.infer(x)
    error = caught.value
    assert (error.layer, error.rank, error.operation, error.retryable) == (0, rank, "pack", False)
    assert f"layer 0, neuron {crosses}: an activation that rank {rank} sends is too large for {wire}" in str(error)


def test_one_worker_refuses_it(tmp_path: Path) -> None:
    partition(copying(), tmp_path / "shards", workers=1, method="block")
    said = "wire float16 rounds what workers send to each other, and one worker sends nothing"
    with pytest.raises(SettingError, match=said):
        fsd.Session(copying(), wire="float16")
    with pytest.raises(SettingError, match=said):
        fsd.Session(tmp_path / "shards", channel="local", wire="float16")
    with pytest.raises(SettingError, match="wire must be one of float32, bfloat16, float16, not 'int8'"):
        fsd.Session(copying(), channel="local", workers=2, wire="int8")


def test_the_report_says_so(shards: Path, tmp_path: Path) -> None:
    with fsd.Session(shards, channel="local", wire="bfloat16") as session:
        answer = session.infer(samples())
    answer.report.save(tmp_path / "run")
    said = "rounded to bfloat16, so not bit-identical to a serial run"
    assert fsd.RunReport.load(tmp_path / "run").wire == "bfloat16"
    assert said in (tmp_path / "run" / "report.html").read_text()
    assert said in dict(answer.summary())["exchanged"]
    with fsd.Session(shards, channel="local") as session:
        answer = session.infer(samples())
    assert answer.report.to_json()["wire"] == "float32"
    assert "bit-identical" not in dict(answer.summary())["exchanged"]
