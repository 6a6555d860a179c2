"""Valid files that were damaged anywhere are read, or refused by an error of `errors.py`."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from scipy import io as scipy_io
from scipy import sparse

from fsd_inference.engine.results import pack_blocks, unpack_blocks
from fsd_inference.errors import FileFormatError, FsdError
from fsd_inference.network import Network, import_network, load_inputs, random_network
from fsd_inference.partitioning import partition
from fsd_inference.partitioning.kernel_shard import kernel_shard
from fsd_inference.partitioning.reading import read_manifest
from fsd_inference.partitioning.shard_file import parse_plan
from fsd_inference.partitioning.shard_reader import whole_shard
from tests.support.damage import damaged
from tests.support.little_memory import little_memory
from tests.support.onnx_models import LINEAR, W, model, node

NETWORK = random_network([12, 10, 8], 4, seed=1)
X = sparse.csr_array(np.array([[1.5, 0, 2], [0, 0, 0], [0, -3, 0.25]], np.float32))
Reader = Callable[[bytes, Path], object]


@pytest.fixture(autouse=True)
def limit() -> Iterator[None]:
    """A reader that takes what a file claims raises MemoryError, which no test expects."""
    with little_memory():
        yield


def tried(read: Reader, valid: bytes, folder: Path) -> None:
    """Have damaged files read, after the valid one."""
    read(valid, folder)

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(damaged(valid))
    def attempt(data: bytes) -> None:
        with contextlib.suppress(FsdError):
            read(data, folder)

    attempt()


def written(file: Path, data: bytes) -> Path:
    file.write_bytes(data)
    return file


# --- inputs -----------------------------------------------------------------------------------------------------------


def saved(write: Callable[[Any], object]) -> bytes:
    target = io.BytesIO()
    write(target)
    return target.getvalue()


def zipped(member: Callable[[bytes], bytes]) -> bytes:
    """Return an .npz file of which each member was passed through a function, so that its checksum is right."""
    with zipfile.ZipFile(io.BytesIO(saved(lambda target: sparse.save_npz(target, X)))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, member(data))
    return target.getvalue()


INPUTS = {
    "x.npz": zipped(lambda data: data),
    "x.npy": saved(lambda target: np.save(target, X.toarray())),
    "x.mtx": saved(lambda target: scipy_io.mmwrite(target, X)),
    "dense.mtx": saved(lambda target: scipy_io.mmwrite(target, X.toarray())),
    "x.svm": b"0 1:1.5 3:2\n1\n-1 qid:1 2:-3 3:0.25 # comment\n",
    "x.csv": b"a,b,c\n1.5,0,2\n0,0,0\n0,-3,0.25\n",
    "x.tsv": b"1\t1\t1.5\n1\t3\t2\n3\t2\t-3\n3\t3\t0.25\n",
}


@pytest.mark.parametrize("name", INPUTS)
def test_inputs(name: str, tmp_path: Path) -> None:
    tried(lambda data, folder: load_inputs(written(folder / name, data), 3), INPUTS[name], tmp_path)


@pytest.mark.parametrize(
    ("name", "data"), [("x.svm", b"0 1e400:1\n"), ("x.mtx", INPUTS["x.mtx"].replace(b"\n1 3 ", b"\n1e400 3 "))]
)
def test_a_place_at_infinity_is_an_error_without_a_warning(name: str, data: bytes, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"inf|1e400"):
        load_inputs(written(tmp_path / name, data), 3)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_members_of_an_archive(tmp_path_factory: pytest.TempPathFactory, drawn: st.DataObject) -> None:
    file = tmp_path_factory.getbasetemp() / "damaged.npz"
    chosen = drawn.draw(st.integers(0, 4))
    order = itertools.count()
    data = zipped(lambda member: drawn.draw(damaged(member)) if next(order) == chosen else member)
    with contextlib.suppress(FsdError):
        load_inputs(written(file, data), 3)


# --- networks ---------------------------------------------------------------------------------------------------------

STATE = {"a.weight": np.ones((4, 3), np.float32), "a.bias": np.zeros(4, np.float32), "b.weight": np.eye(4, dtype="f4")}


def imported(name: str, **how: Any) -> Reader:
    return lambda data, folder: list(import_network(written(folder / name, data), **how))


def in_folder(name: str, **how: Any) -> Reader:
    def read(data: bytes, folder: Path) -> object:
        (folder / "layers").mkdir(exist_ok=True)
        written(folder / "layers" / name, data)
        return list(import_network(folder / "layers", **how))

    return read


def opened(name: str) -> Reader:
    def read(data: bytes, folder: Path) -> object:
        written(folder / "net" / name, data)
        return list(Network.load(folder / "net"))

    return read


def test_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    nodes = [LINEAR, node("Relu", "h", out="r"), node("Gemm", "r", "v", "c", out="s", transB=1)]
    constants = W | {"v": np.ones((2, 3), np.float32), "c": np.zeros(2, np.float32)}
    tried(imported("m.onnx", most_connections=80_000), model(nodes, constants).SerializeToString(), tmp_path)


def test_safetensors(tmp_path: Path) -> None:
    tried(imported("m.safetensors", layers=["a", "b"]), save(STATE), tmp_path)


def test_index_of_safetensors(tmp_path: Path) -> None:
    written(tmp_path / "s.safetensors", save(STATE))
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(STATE, "s.safetensors")}
    tried(imported("m.safetensors.index.json", layers=["a", "b"]), json.dumps(index).encode(), tmp_path)


@pytest.mark.parametrize("name", ["layer-1.npz", "layer-1.npy", "layer-1.mtx"])
def test_matrices(name: str, tmp_path: Path) -> None:
    tried(in_folder(name), INPUTS[f"x.{name.rpartition('.')[2]}"], tmp_path)


def test_a_layer_of_the_graph_challenge(tmp_path: Path) -> None:
    tried(in_folder("n4-l1.tsv", bias=-0.5), b"1\t1\t0.5\n2\t1\t1\n4\t3\t2\n", tmp_path)


@pytest.mark.parametrize("name", ["layers-00000.safetensors", "network.json"])
def test_stored_networks(name: str, tmp_path: Path) -> None:
    NETWORK.save(tmp_path / "net")
    tried(opened(name), (tmp_path / "net" / name).read_bytes(), tmp_path)


# --- shards, whose digests a sender may make valid --------------------------------------------------------------------


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cut") / "shards"
    partition(NETWORK, folder, workers=2)
    return folder


def test_a_shard(shards: Path, tmp_path: Path) -> None:
    def read(data: bytes, folder: Path) -> object:
        return kernel_shard(whole_shard(data, "the shard", NETWORK.widths[1:]).whole())

    tried(read, (shards / read_manifest(shards).shards[0].file).read_bytes(), tmp_path)


def test_a_plan(shards: Path, tmp_path: Path) -> None:
    tried(lambda data, _: parse_plan(data, 2, "the plan"), (shards / "plan.safetensors").read_bytes(), tmp_path)


# --- results of ranks ------------------------------------------------------------------------------------


def test_results(tmp_path: Path) -> None:
    tried(lambda data, _: unpack_blocks(data, 2), pack_blocks([b"one", b"another"]), tmp_path)
