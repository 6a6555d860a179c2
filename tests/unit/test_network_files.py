"""The network file format: round trips, atomic writes, and corruption of every kind."""

import hashlib
import itertools
import json
import os
import shutil
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from scipy import sparse

from fsd_inference.errors import FileFormatError, InputError
from fsd_inference.network import IDENTITY, RELU, Activation, Layer, Network, RowGroup, graph_challenge
from fsd_inference.network import file_format as files


@st.composite
def row_groups(draw: st.DrawFn, rows: int) -> list[RowGroup]:
    kinds = [IDENTITY, RELU, Activation("clipped_relu", 0.3), Activation("prelu"), Activation("elu", 1.5)]
    groups = []
    while rows:
        count = draw(st.integers(1, rows))
        groups.append(RowGroup(count, draw(st.sampled_from(kinds))))
        rows -= count
    return groups


@st.composite
def networks(draw: st.DrawFn) -> Network:
    widths = draw(st.lists(st.integers(1, 5), min_size=2, max_size=5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    layers = []
    for inputs, outputs in itertools.pairwise(widths):
        weights = rng.normal(size=(outputs, inputs)) * (
            rng.random((outputs, inputs)) < draw(st.sampled_from([0, 0.5, 1]))
        )
        if draw(st.booleans()):
            weights = np.sign(np.abs(weights)) / 16
        bias = rng.normal(size=draw(st.sampled_from([1, outputs])))
        layers.append(Layer(weights, bias, draw(row_groups(outputs)), slopes=rng.normal(size=outputs)))
    return Network(layers, name=draw(st.text(max_size=5)))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(network=networks(), group_bytes=st.sampled_from([1, 100, 1 << 20]))
def test_what_is_written_is_read(
    network: Network, group_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_GROUP_BYTES", group_bytes)
    place = tmp_path / "network"  # each example replaces the one before
    network.save(place)
    read = Network.load(place)
    assert read.digest == network.digest
    assert read.widths == network.widths
    assert read.connections == network.connections
    assert list(read.sizes()) == list(network.sizes())
    assert read.name == network.name
    for ours, theirs in zip(network, read, strict=True):
        assert theirs.groups == ours.groups
        for expected, found in zip(ours.kernel_arrays(), theirs.kernel_arrays(), strict=True):
            if not isinstance(found, tuple):
                np.testing.assert_array_equal(found, expected)
            if isinstance(found, np.ndarray):
                assert found.dtype == np.asarray(expected).dtype
                assert not found.flags.writeable
    assert [entry.name for entry in tmp_path.iterdir()] == ["network"]


@pytest.mark.parametrize("kind", ["relu", "identity", "clipped_relu"])
def test_networks_of_version_1_are_read(tmp_path: Path, kind: str) -> None:
    activation = Activation(kind, *([0.5] if kind == "clipped_relu" else []))  # type: ignore[arg-type]
    layer = Layer([[0.5, 0], [1, -2]], [0, -0.25], activation)
    hashed = hashlib.sha256(b"fsd-layer-1")
    code = ("identity", "relu", "clipped_relu").index(kind)
    hashed.update(struct.pack("<5QBf", 2, 2, 3, 3, 2, code, sum(activation.parameters)))
    hashed.update(np.array([0, 1, 3], np.int64).tobytes() + np.array([0, 0, 1], np.uint16).tobytes())
    hashed.update(np.array([0.5, 1, -2, 0, -0.25], np.float32).tobytes())
    assert layer.digest == hashed.digest()
    Network([layer]).save(tmp_path / "n")

    def as_before(manifest: Any) -> None:
        manifest["version"] = 1
        record = manifest["layers"][0]
        del record["row_groups"]
        record |= {"activation": kind, "clip": sum(activation.parameters)}

    edit_manifest(tmp_path / "n", as_before)
    assert Network.load(tmp_path / "n").layer(0) == layer


def test_wide_inputs_are_stored_as_u32(tmp_path: Path) -> None:
    wide = sparse.csr_array((np.ones(2, np.float32), [3, 69_999], [0, 1, 2]), shape=(2, 70_000))
    Network([Layer(wide, 0)]).save(tmp_path / "n")
    assert Network.load(tmp_path / "n").layer(0).kernel_arrays().indices.tolist() == [3, 69_999]


def test_layers_are_written_one_by_one_and_reported(tmp_path: Path) -> None:
    done: list[int] = []
    network = graph_challenge(1024, 5)
    network.save(tmp_path / "n", done.append)
    assert done == [1, 2, 3, 4, 5]
    stored = Network.load(tmp_path / "n" / "network.json")
    assert stored.digest == network.digest
    # 32 connections of two bytes a neuron, one weight, one bias: row starts and equal weights take no room.
    assert sum(entry.stat().st_size for entry in (tmp_path / "n").iterdir()) < 5 * (1024 * 32 * 2 + 1024)


def test_a_network_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph_challenge(1024, 2).save(tmp_path / "n")
    monkeypatch.chdir(tmp_path)
    for path in ("n", "n/network.json"):
        network = Network.load(path)
        monkeypatch.chdir("/")
        assert network.layer(1) == graph_challenge(1024, 2).layer(1)
        assert network.sizes() == graph_challenge(1024, 2).sizes()
        monkeypatch.chdir(tmp_path)


def test_a_network_can_be_saved_over_itself(tmp_path: Path) -> None:
    place = tmp_path / "n"
    graph_challenge(1024, 2).save(place)
    Network.load(place).save(place)
    assert Network.load(place).digest == graph_challenge(1024, 2).digest


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    place = tmp_path / "n"
    Network([Layer([[1]], 0)], name="old").save(place)

    def breaks() -> Iterator[Layer]:
        yield Layer([[2]], 0)
        raise RuntimeError("the generator broke")

    with pytest.raises(RuntimeError, match="broke"):
        files.write_network(place, "new", breaks())
    assert Network.load(place).name == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["n"]


def test_nothing_else_is_replaced(tmp_path: Path) -> None:
    network = Network([Layer([[1]], 0)])
    file = tmp_path / "file"
    file.write_text("precious")
    folder = tmp_path / "folder"
    network.save(folder)
    (folder / "precious.txt").write_text("precious")
    for place in (file, folder):
        with pytest.raises(InputError, match=r"holds no network|is a file"):
            network.save(place)
    assert file.read_text() == "precious"
    assert (folder / "precious.txt").exists()
    with pytest.raises(InputError, match="cannot be written"):
        network.save(tmp_path / "no" / "such" / "folder")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of three layers in two files."""
    rng = np.random.default_rng(1)
    layers = [
        Layer(rng.normal(size=(4, 3)), rng.normal(size=4)),
        Layer(np.tril(np.full((4, 4), 0.5)), -0.5, Activation("clipped_relu", 2)),
        Layer(rng.normal(size=(2, 4)) * [1, 0, 1, 1], 0, IDENTITY),
    ]
    place = tmp_path_factory.mktemp("stored") / "n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_GROUP_BYTES", 150)
        Network(layers, name="small").save(place)
    assert len(list(place.iterdir())) == 3
    return place


@pytest.fixture
def damaged(stored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stored, tmp_path / "n"))


def refused_or_equal(place: Path, digest: bytes) -> bool:
    """Read everything; True if it was refused. Anything but a refusal or the same content fails."""
    try:
        network = Network.load(place)
        content = Network(network).digest
    except FileFormatError as error:
        assert "\n" not in str(error).replace(str(place), "")  # noqa: PT017 - refusal is one of two good ends
        return True
    assert content == digest
    return False


@pytest.mark.parametrize("name", ["network.json", "layers-00000.safetensors", "layers-00001.safetensors"])
def test_every_truncation_and_every_flipped_byte_is_seen(damaged: Path, name: str) -> None:
    digest = Network.load(damaged).digest
    file = damaged / name
    whole = file.read_bytes()
    for length in range(0, len(whole) - 1, 7):  # the manifest's last byte is a line end
        file.write_bytes(whole[:length])
        assert refused_or_equal(damaged, digest), length
    for extended in (whole + b"\0", whole + whole):
        file.write_bytes(extended)
        assert refused_or_equal(damaged, digest)
    refused = 0
    positions = range(0, len(whole), 3)
    for position in positions:
        changed = bytearray(whole)
        changed[position] ^= 0x80 if position % 2 else 0x01
        file.write_bytes(changed)
        refused += refused_or_equal(damaged, digest)
    assert refused > 0.6 * len(positions)  # JSON has blanks and a name that may differ


def edit_manifest(place: Path, change: Callable[[Any], object]) -> None:
    file = place / "network.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(format="other"),
        lambda m: m.update(version=3),
        lambda m: m.update(version=True),
        lambda m: m.update(layers=[]),
        lambda m: m.update(layers=3),
        lambda m: m.update(layers=[3]),
        lambda m: m.update(digest="00"),
        lambda m: m.update(name=None),
        lambda m: m.update(group_bytes=[1]),
        lambda m: m.update(group_bytes=["1", "2"]),
        lambda m: m["layers"].reverse(),
        lambda m: m["layers"].pop(),
        lambda m: m["layers"][0].update(inputs=0),
        lambda m: m["layers"][0].update(inputs=5),
        lambda m: m["layers"][0].update(inputs=2**80),
        lambda m: m["layers"][0].update(inputs=2**40),
        lambda m: m["layers"][0].update(inputs="3"),
        lambda m: m["layers"][0].update(outputs=-1),
        lambda m: m["layers"][0].update(connections=2**62),
        lambda m: m["layers"][0].update(degree=4),
        lambda m: m["layers"][0].update(degree=1.5),
        lambda m: m["layers"][0].update(degree=None),
        lambda m: m["layers"][0].update(group=-1),
        lambda m: m["layers"][0].update(group=2),
        lambda m: m["layers"][0].update(group=1),
        lambda m: m["layers"][0].update(digest="xy"),
        lambda m: m["layers"][0].update(row_groups=[[4, "sum", "tanh", []]]),
        lambda m: m["layers"][0].update(row_groups=[]),
        lambda m: m["layers"][0].update(row_groups=5),
        lambda m: m["layers"][0].update(row_groups=[[4, "sum", "relu"]]),
        lambda m: m["layers"][0].update(row_groups=[[5, "sum", "relu", []]]),
        lambda m: m["layers"][0].update(row_groups=[[2**80, "sum", "relu", []]]),
        lambda m: m["layers"][0].update(row_groups=[[4, "max", "relu", []]]),
        lambda m: m["layers"][0].update(row_groups=[[4, "sum", "prelu", []]]),
        lambda m: m["layers"][0].update(row_groups=[[4, "sum", ["relu"], []]]),
        lambda m: m["layers"][1].update(row_groups=[[4, "sum", "clipped_relu", [1e999]]]),
        lambda m: m["layers"][1].update(row_groups=[[4, "sum", "clipped_relu", [10**400]]]),
        lambda m: m["layers"][1].update(row_groups=[[4, "sum", "clipped_relu", [3]]]),
        lambda m: m["layers"][2].pop("row_groups"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(damaged: Path, change: Callable[[Any], object]) -> None:
    digest = Network.load(damaged).digest
    edit_manifest(damaged, change)
    assert refused_or_equal(damaged, digest)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "1" * 10_000, "null", "[]", "\udcff"])
def test_a_manifest_that_is_not_ours_is_refused(damaged: Path, text: str) -> None:
    (damaged / "network.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(FileFormatError, match=r"network\.json"):
        Network.load(damaged)


@pytest.mark.parametrize(
    ("tensor", "array", "says"),
    [
        ("0.values", np.ones(12, np.float64), "tensor 0.values is of type F64, not float32"),
        ("0.values", np.full(12, np.nan, np.float32), "layer 0: a weight is not finite"),
        ("0.values", np.ones(11, np.float32), r"tensor 0.values has shape \[11\]"),
        ("0.values", np.ones((3, 4), np.float32), r"tensor 0.values has shape \[3, 4\]"),
        ("0.values", np.ones(12, np.float32), "SHA-256"),
        ("0.bias", np.full(4, np.inf, np.float32), "layer 0: a bias is not finite"),
        ("0.bias", np.ones(3, np.float32), "tensor 0.bias has shape"),
        ("0.indices", np.zeros(12, np.uint32), "tensor 0.indices is of type U32, not uint16"),
        ("0.indices", np.zeros(12, np.uint16), "layer 0: a layer's column indices must ascend"),
        ("0.indices", np.full(12, 9, np.uint16), "layer 0: a layer of 3 inputs has a connection to input 9"),
        ("0.values", None, "damaged or cannot be read"),
    ],
)
def test_a_wrong_tensor_is_named(damaged: Path, tensor: str, array: NDArray[Any] | None, says: str) -> None:
    file = damaged / "layers-00000.safetensors"
    tensors = load_file(file)
    if array is None:
        del tensors[tensor]
    else:
        tensors[tensor] = array
    save_file(tensors, file)
    edit_manifest(damaged, lambda manifest: manifest["group_bytes"].__setitem__(0, file.stat().st_size))
    with pytest.raises(FileFormatError, match=says) as caught:
        list(Network.load(damaged))
    assert file.name in str(caught.value)


def test_missing_files_are_named(damaged: Path, tmp_path: Path) -> None:
    (damaged / "layers-00001.safetensors").unlink()
    with pytest.raises(FileFormatError, match=r"layers-00001\.safetensors"):
        Network.load(damaged)
    with pytest.raises(FileFormatError, match="is not a network"):
        Network.load(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileFormatError, match="cannot be read"):
        Network.load(tmp_path / "file")


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_all_files_have_the_permissions_of_new_files(mask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        graph_challenge(1024, 1).save(tmp_path / "net")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "net").iterdir()} == {mode}
