"""Digests of layers: the same however a network and a batch are divided, and those that NumPy computes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.digests import Digests
from fsd_inference.engine.serial import serial_outputs, serial_state
from fsd_inference.errors import FileFormatError
from fsd_inference.kernels import LayerKernel
from fsd_inference.session.slices import slices
from tests.support.reports import rank_value
from tests.support.runs import session
from tests.support.schedules import Case, cases

Words = NDArray[np.uint64]


def splitmix64(state: Words) -> Words:
    """As docs/file-formats.md describes it."""
    z = state + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def digest(level: int, x: NDArray[np.float32]) -> int:
    """Return the digest of values, samples x neurons."""
    samples, neurons = np.nonzero(x)
    rows = splitmix64((level << 32) + neurons.astype(np.uint64))
    bits = x[samples, neurons].view(np.uint32).astype(np.uint64)
    return int(splitmix64(rows + (samples.astype(np.uint64) << np.uint64(32)) + bits).sum(dtype=np.uint64))


def expected(network: fsd.Network, x: NDArray[np.float32]) -> tuple[int, tuple[int, ...]]:
    """Return the digests of a batch and of the outputs of each layer, each of which is run on its own."""
    rows, layers = sparse.csr_array(x), []
    for number, layer in enumerate(network):
        rows = serial_outputs([layer], rows)
        layers.append(digest(number + 1, rows.toarray()))
    return digest(0, x), tuple(layers)


def kept(network: fsd.Network, x: NDArray[np.float32], *, replicas: int, threads: int, at_once: int) -> list[int]:
    """Return the digests of a batch and of all layers, from slices and from groups of `at_once` layers."""
    kernels = [LayerKernel(*layer.kernel_arrays()) for layer in network]
    found = Counter[int]()
    for part in slices(len(x), replicas):
        state = serial_state(x[part], threads)
        state.keep_digests(part.start)
        for first in range(0, len(kernels), at_once):
            state.apply(kernels[first : first + at_once])
        found.update(dict(enumerate(state.digests())))
    return [found[number] % 2**64 for number in range(len(network) + 1)]


@given(cases(), st.integers(1, 3), st.integers(1, 2), st.integers(1, 6))
def test_slices_threads_and_groups_of_layers_do_not_matter(
    case: Case, replicas: int, threads: int, at_once: int
) -> None:
    batch, layers = expected(case.network, case.x)
    assert kept(case.network, case.x, replicas=replicas, threads=threads, at_once=at_once) == [batch, *layers]


@pytest.mark.parametrize("samples", [3, 40, 500])
def test_all_ways_to_compute_a_batch_agree(samples: int) -> None:
    """Few samples, less than a panel, and many, of which some die on the way."""
    rng = np.random.default_rng(samples)
    network = fsd.random_network([300, 2500, 200, 200, 200, 90], connections=9, seed=3)
    x = ((rng.random((samples, 300)) < 0.02) * rng.random((samples, 300))).astype(np.float32)
    x[0] = -0.0
    batch, layers = expected(network, x)
    for threads in (1, 2):
        for at_once in (1, 5):
            for _ in range(3):  # slices for few samples are made after some use
                found = kept(network, x, replicas=1, threads=threads, at_once=at_once)
                assert found == [batch, *layers]
    assert kept(network, np.asfortranarray(x), replicas=1, threads=2, at_once=5)[0] == batch


@given(cases())
def test_ranks_micro_batches_and_cuts_do_not_matter(case: Case) -> None:
    """Digests of all ranks, of any partition and schedule, add up to those of the whole."""
    found = Counter[int]()
    for rank in case.play().ranks:
        for layer, part in rank.digests:
            found[layer] += part
    assert tuple(found[layer] % 2**64 for layer in range(len(case.network))) == expected(case.network, case.x)[1]


def test_each_value_counts_with_its_place() -> None:
    x = np.zeros((4, 5), np.float32)
    x[1, 2], x[3, 4] = 1.5, -2.5
    state = serial_state(x)
    state.keep_digests(0)
    assert state.digests() == [digest(0, x)]
    for other in (x[::-1], x[:, ::-1], -x, np.nextafter(x, 9, dtype=np.float32) * (x != 0), 0 * x):
        state = serial_state(np.ascontiguousarray(other))
        state.keep_digests(0)
        assert state.digests() != [digest(0, x)]
    assert digest(0, 0 * x) == 0


def test_digests_are_kept_from_the_first_layer_or_not_at_all() -> None:
    network = fsd.random_network([6, 4], connections=2)
    kernels = [LayerKernel(*layer.kernel_arrays()) for layer in network]
    state = serial_state(np.ones((2, 6), np.float32))
    state.apply(kernels)
    assert state.digests() == []
    with pytest.raises(ValueError, match="1 layers were applied before digests were asked for"):
        state.keep_digests(0)


NETWORK = fsd.random_network([64, 48, 32, 40], connections=8, seed=1)


def inputs(samples: int = 37) -> NDArray[np.float32]:
    rng = np.random.default_rng(4)
    return ((rng.random((samples, 64)) < 0.3) * rng.random((samples, 64))).astype(np.float32)


@pytest.mark.parametrize(
    ("channel", "settings"),
    [
        ("serial", {}),
        ("serial", {"replicas": 3, "threads": 2}),
        ("serial", {"memory_limit_mb": 2000, "output": "argmax"}),
        ("local", {"workers": 1}),
        ("local", {"workers": 3, "partition": "graph"}),
        ("local", {"workers": 2, "micro_batches": 5, "threads": 2, "overlap": False, "output": "any"}),
    ],
)
def test_the_report_of_a_run_has_them(channel: str, settings: dict[str, Any], tmp_path: Path) -> None:
    x = inputs()
    with session(NETWORK, channel, verify=True, **settings) as asked:
        answer = asked.infer(x)
    report = answer.report
    batch, layers = expected(NETWORK, x)
    assert report.digests is not None
    assert report.digests == Digests(NETWORK.digest.hex(), report.digests.plan, batch, layers)
    assert (report.digests.plan is None) == (channel == "serial")
    for layer in range(len(layers) if report.ranks else 0):
        assert sum(rank.digests[layer] for rank in report.ranks) % 2**64 == layers[layer]
    report.save(tmp_path)
    assert fsd.RunReport.load(tmp_path).digests == report.digests
    assert f"{layers[-1]:016x}" in (tmp_path / "report.html").read_text()
    assert f"{layers[-1]:016x}" in dict(answer.summary())["digests"]


@pytest.mark.parametrize(("channel", "workers"), [("serial", 1), ("local", 2)])
def test_nothing_is_computed_that_was_not_asked_for(channel: str, workers: int) -> None:
    with session(NETWORK, channel, workers=workers) as asked:
        report = asked.infer(inputs()).report
    assert report.digests is None
    assert all(rank.digests == () for rank in report.ranks)


def report_value(**changes: Any) -> dict[str, Any]:
    with session(NETWORK, "serial", verify=True) as asked:
        value = asked.infer(inputs()).report.to_json()
    return value | {"ranks": [rank_value(0, 1, 3)]} | changes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch": 5}, "'digests.batch' must be a string, not 5"),
        ({"batch": "5"}, "'digests.batch' must hold 16 hexadecimal digits each, not '5'"),
        ({"layers": ["0" * 16, 7]}, "'digests.layers' must hold 16 hexadecimal digits each, not 7"),
        ({"network": None}, "'digests.network' must be a string, not None"),
    ],
)
def test_wrong_digests_of_a_file_are_named(change: dict[str, Any], said: str) -> None:
    value = report_value()
    value["digests"] |= change
    with pytest.raises(FileFormatError, match=said):
        fsd.RunReport.from_json(value)
