"""Serial inference within a memory limit: the same outputs, and never more layers in memory than allowed."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.engine import streaming
from fsd_inference.engine.serial import run_serial, serial_state
from fsd_inference.engine.streaming import layers_at_once, stream_layers
from fsd_inference.errors import FileFormatError, SettingError
from fsd_inference.network import Layer, Network
from fsd_inference.network.source import LayerSource
from tests.support.cli import fsd_in
from tests.support.runs import same, serial

WIDTH, LAYERS = 3000, 31
NETWORK = fsd.random_network([WIDTH] * (LAYERS + 1), 32, seed=4)
LAYER_BYTES = WIDTH * (32 * 6 + 12)
X = sparse.csr_array(np.random.default_rng(0).random((40, WIDTH), np.float32))


class Counted(LayerSource):
    """A source that makes each layer anew, and counts those that are alive."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.widths = network.widths
        self.alive = self.most = self.reads = 0
        self._lock = threading.Lock()

    def layer(self, index: int) -> Layer:
        held = self._network.layer(index).kernel_arrays()
        indices = held.indices.copy()
        weakref.finalize(indices, self._count, -1)
        self._count(1)
        return Layer.from_arrays(held.indptr, indices, held.values, held.columns, bias=held.bias)

    def _count(self, more: int) -> None:
        with self._lock:
            self.alive += more
            self.reads += more > 0
            self.most = max(self.most, self.alive)

    def sizes(self) -> Sequence[tuple[int, int]]:
        return self._network.sizes()


@pytest.fixture(autouse=True)
def weightless_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "PROCESS_BYTES", 0)


def test_the_number_of_layers_follows_from_what_the_batch_leaves() -> None:
    others = 2 * 1000 + 4 * 10 * 3 * WIDTH
    whole = others + 2 * LAYERS * LAYER_BYTES
    assert layers_at_once(NETWORK, 10, 1000, whole) is None
    assert layers_at_once(NETWORK, 10, 1000, whole - 1) == (2 * LAYERS - 1) // 4
    assert layers_at_once(NETWORK, 10, 1000, others + 4 * LAYER_BYTES) == 1
    with pytest.raises(SettingError, match="10 samples at a time and 4 layers need"):
        layers_at_once(NETWORK, 10, 1000, others + 4 * LAYER_BYTES - 1)


@pytest.mark.parametrize("at_once", [1, 4, 16])
def test_no_more_layers_are_alive_than_allowed(at_once: int) -> None:
    source = Counted(NETWORK)
    found = run_serial(stream_layers(Network.from_source(source), at_once), serial_state(X), at_once=at_once).rows
    assert not isinstance(found, np.ndarray)
    assert same(found, serial(NETWORK, X))
    assert source.reads == LAYERS
    assert source.alive == 0
    assert source.most <= 2 * at_once + 1


def test_a_session_within_a_limit_answers_the_same_each_time(tmp_path: Path) -> None:
    NETWORK.save(tmp_path / "net")
    expected = serial(NETWORK, X)
    with fsd.Session(tmp_path / "net", memory_limit_mb=8) as session:
        for _ in range(2):
            assert same(session.infer(X).outputs, expected)
        assert session.report is not None
        assert (session.report.layers, session.report.connections) == (LAYERS, NETWORK.connections)
    with fsd.Session(tmp_path / "net", memory_limit_mb=8, replicas=2) as session, pytest.raises(SettingError):
        session.infer(X)


def test_a_damaged_layer_is_named(tmp_path: Path) -> None:
    NETWORK.save(tmp_path / "net")
    file = tmp_path / "net" / "layers-00000.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with (
        fsd.Session(tmp_path / "net", memory_limit_mb=8) as session,
        pytest.raises(FileFormatError, match=r"layers-00000\.safetensors: the content of layer \d+ is not"),
    ):
        session.infer(X)


def test_limits_that_cannot_be_are_refused() -> None:
    with pytest.raises(SettingError, match="memory_limit_mb must be a whole number"):
        fsd.Session(NETWORK, memory_limit_mb=0)
    with pytest.raises(SettingError, match="only to channel 'serial' without functions"):
        fsd.Session(NETWORK, channel="local", workers=2, memory_limit_mb=100)


def test_the_option_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    NETWORK.save(tmp_path / "net")
    sparse.save_npz(tmp_path / "x.npz", X)
    arguments = ["infer", str(tmp_path / "net"), str(tmp_path / "x.npz"), "-o", str(tmp_path / "y.npz")]
    command = fsd_in(capsys)
    assert command(*arguments, "--memory-limit", "8").code == 0
    assert same(sparse.csr_array(sparse.load_npz(tmp_path / "y.npz")), serial(NETWORK, X))
    said = command(*arguments, "--memory-limit", "2")
    assert said.code == 2
    assert "40 samples at a time and 4 layers need" in said.stderr
