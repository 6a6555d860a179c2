"""Output functions: exact choices, softmax close to an oracle of higher precision, the same bits however it is run."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.errors import FileFormatError, InputError
from fsd_inference.network import IDENTITY, Layer, Network, OutputFunction, elementary, output_function
from fsd_inference.partitioning import MANIFEST_FILE
from tests.support.cli import Fsd, fsd_in
from tests.support.runs import dense

ALL = [OutputFunction("softmax"), OutputFunction("log_softmax"), OutputFunction("argmax"), OutputFunction("top_k", 3)]
X = sparse.csr_array(np.random.default_rng(0).standard_normal((40, 24), np.float32))

scores = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.floats(-200, 200, width=32) | st.sampled_from([0.0, -0.0, 1.0, 3e38, -3e38, 1e-40]),
)


@pytest.fixture
def fsd_program(capsys: pytest.CaptureFixture[str]) -> Fsd:
    return fsd_in(capsys)


def network(output: OutputFunction | None) -> Network:
    made = fsd.random_network([24, 40, 16], connections=6, seed=3)
    layers = [made.layer(0), Layer(made.layer(1).weights, 0.25, IDENTITY)]
    return Network(layers, output=output)


def bits(answer: fsd.Inference) -> tuple[bytes | None, ...]:
    chosen = [part if part is None else part.tobytes() for part in (answer.top, answer.top_values)]
    return (dense(answer.outputs).tobytes(), *chosen)


def ulps(found: NDArray[np.float64], expected: NDArray[np.longdouble]) -> float:
    return float(np.max(np.abs(found - expected) / np.spacing(np.abs(found))))


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 60, reason="long double is no wider than float64 here")
def test_elementary_functions_err_by_one_unit_in_the_last_place_at_most() -> None:
    x = np.concatenate([np.linspace(-700, 700, 200_001), -np.geomspace(1e-300, 1, 10_000), [0.0]])
    assert ulps(elementary.exp(x), np.exp(x.astype(np.longdouble))) < 1
    y = np.concatenate([np.geomspace(1e-300, 1e300, 100_001), np.linspace(0.5, 2, 100_001)[1:], [2.0**20]])
    y = y[y != 1]
    assert ulps(elementary.log(y), np.log(y.astype(np.longdouble))) < 1
    assert elementary.log(np.ones(1)).tobytes() == bytes(8)
    assert elementary.exp(np.array([-700.5, -1e300])).tobytes() == bytes(16)


def test_elementary_functions_have_the_same_bits_everywhere() -> None:
    x = np.arange(-90_000, 1, dtype=np.float64) / 128
    digest = hashlib.sha256(elementary.exp(x).astype("<f8").tobytes() + elementary.log(1 - x).astype("<f8").tobytes())
    assert digest.hexdigest() == "6e621d6d01ba38cf1ec9f3da8f13e9b106ce3cc5d0535638eb0542d15b910694"


@given(scores)
def test_softmax_is_close_to_that_in_long_double(values: NDArray[np.float32]) -> None:
    wide = values.astype(np.longdouble)
    wide -= wide.max(axis=1, keepdims=True)
    total = np.exp(wide).sum(axis=1, keepdims=True)
    given_scores = sparse.csr_array(values)
    found = OutputFunction("softmax").transformed(given_scores)
    assert found.dtype == np.float32
    assert found.data.all()
    np.testing.assert_allclose(found.toarray(), (np.exp(wide) / total).astype(np.float64), rtol=6.1e-8, atol=1e-44)
    logarithm = OutputFunction("log_softmax").transformed(given_scores).toarray()
    exact = np.maximum(wide - np.log(total), np.finfo(np.float32).min).astype(np.float64)
    np.testing.assert_allclose(logarithm, exact, rtol=6.1e-8, atol=1e-15)


@given(scores, st.integers(1, 9))
def test_equal_scores_are_chosen_in_ascending_order(values: NDArray[np.float32], k: int) -> None:
    k = min(k, values.shape[1])
    rounded = np.round(values / 64)  # ties
    top, top_values = OutputFunction("top_k", k).top(sparse.csr_array(rounded))
    expected = [sorted(range(len(row)), key=lambda output: (-row[output], output))[:k] for row in rounded.tolist()]
    assert top.dtype == np.int64
    assert top.tolist() == expected
    assert (top_values == np.take_along_axis(rounded, top, axis=1)).all()
    best, _ = OutputFunction("argmax").top(sparse.csr_array(rounded))
    assert best[:, 0].tolist() == rounded.argmax(axis=1).tolist()


@settings(max_examples=20)
@given(scores, st.sampled_from(ALL), st.integers(1, 30))
def test_blocks_change_nothing(values: NDArray[np.float32], function: OutputFunction, entries: int) -> None:
    function = OutputFunction("top_k", 1) if function.k else function
    given_scores = sparse.csr_array(values)
    with pytest.MonkeyPatch.context() as patch:
        whole = [array.tobytes() for array in applied(function, given_scores)]
        patch.setattr(output_function, "BLOCK_ENTRIES", entries)
        assert [array.tobytes() for array in applied(function, given_scores)] == whole


def applied(function: OutputFunction, values: sparse.csr_array) -> list[NDArray[Any]]:
    return list(function.top(values)) if function.selects else [function.transformed(values).toarray()]


@pytest.mark.parametrize("function", ALL)
def test_ranks_and_replicas_answer_bit_for_bit(function: OutputFunction, tmp_path: Path) -> None:
    whole = network(function)
    with fsd.Session(network(None)) as session:
        plain = session.infer(X)
    with fsd.Session(whole) as session:
        alone = session.infer(X)
    with fsd.Session(whole, replicas=3) as session:
        assert bits(session.infer(X)) == bits(alone)
    fsd.partition(whole, tmp_path / "shards", workers=3)
    with fsd.Session(tmp_path / "shards", channel="local") as session:  # knows the function by the shards alone
        assert bits(session.infer(X)) == bits(alone)
    if function.selects:
        assert bits(alone)[0] == bits(plain)[0]
        assert alone.top is not None
        assert alone.top.shape == (40, function.k or 1)
        assert (alone.top[:, 0] == dense(plain.outputs).argmax(axis=1)).all()
    else:
        exact = np.exp(dense(plain.outputs).astype(np.float64))
        exact /= exact.sum(axis=1, keepdims=True)
        found = dense(alone.outputs)
        np.testing.assert_allclose(found if function.kind == "softmax" else np.exp(found), exact, rtol=1e-6)


def test_summaries_are_of_the_scores() -> None:
    with fsd.Session(network(None), output="argmax") as session:
        plain = session.infer(X)
    for function in ALL:
        with fsd.Session(network(function), output="argmax") as session:
            answer = session.infer(X)
        assert plain.values is not None
        assert answer.values is not None
        assert (answer.values == plain.values).all()
        assert (answer.outputs, answer.top) == (None, None)


@pytest.mark.parametrize("function", ALL)
def test_networks_keep_their_function(function: OutputFunction, tmp_path: Path) -> None:
    made = network(function)
    made.save(tmp_path / "net")
    assert Network.load(tmp_path / "net").output == made.output == function
    assert made.digest == network(None).digest
    without = network(None)
    without.save(tmp_path / "plain")
    assert "output" not in json.loads((tmp_path / "plain" / "network.json").read_text())
    assert Network.load(tmp_path / "plain").output is without.output is None
    assert Network.from_matrices([np.eye(3)], output=function).output == function


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: OutputFunction("max"), "is one of softmax, log_softmax, argmax, top_k, not 'max'"),  # type: ignore[arg-type]
        (lambda: OutputFunction("softmax", 2), "softmax takes no k, but 2 is given"),
        (lambda: OutputFunction("top_k"), 'top_k needs its number of outputs, such as OutputFunction("top_k", 5)'),
        (lambda: OutputFunction("top_k", 0), "the k of top_k must be at least 1, not 0"),
        (lambda: OutputFunction("top_k", 1.5), "the k of top_k must be a whole number, not 1.5"),  # type: ignore[arg-type]
        (lambda: network(OutputFunction("top_k", 17)), "16 outputs, fewer than the 17 of its output function top_k"),
        (lambda: network("softmax"), "must be an OutputFunction, such as OutputFunction(\"softmax\"), not 'softmax'"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_a_function_is_refused(make: Any, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        make()


@pytest.mark.parametrize("value", ["softmax", {}, {"kind": "top_k", "k": 17}, {"kind": "softmax", "beta": 1}, [1]])
def test_files_with_another_function_are_refused(value: object, tmp_path: Path) -> None:
    network(ALL[0]).save(tmp_path / "net")
    fsd.partition(network(ALL[0]), tmp_path / "shards", workers=2)
    for file in (tmp_path / "net" / "network.json", tmp_path / "shards" / MANIFEST_FILE):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"output": value}))
    with pytest.raises(FileFormatError, match=r"network\.json: the network: the field 'output' is missing or invalid"):
        Network.load(tmp_path / "net")
    with pytest.raises(FileFormatError, match="shards"):
        fsd.Session(tmp_path / "shards", channel="local")


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize("suffix", [".npz", ".npy", ".csv"])
def test_the_program_writes_what_the_function_gives(
    function: OutputFunction, suffix: str, fsd_program: Fsd, tmp_path: Path
) -> None:
    network(function).save(tmp_path / "net")
    np.save(tmp_path / "x.npy", X.toarray())
    path = tmp_path / f"out{suffix}"
    done = fsd_program("infer", str(tmp_path / "net"), str(tmp_path / "x.npy"), "-o", str(path))
    with fsd.Session(network(function)) as session:
        answer = session.infer(X)
    expected = dense(answer.outputs) if answer.top is None else np.squeeze(answer.top)
    if suffix == ".csv":
        found = np.loadtxt(path, np.float32, delimiter=",")
    elif suffix == ".npy":
        found = np.load(path)
    else:
        with np.load(path) as archive:
            found = archive["labels"] if function.selects else sparse.load_npz(path).toarray()
    assert found.tolist() == expected.tolist()
    assert ("labels" in done.stdout) == function.selects
    assert function.kind in fsd_program("network", "info", str(tmp_path / "net")).stdout
