"""Damaged and hostile files of every kind: one line and exit code 2, in a process that has little memory."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save

from fsd_inference.errors import FileFormatError
from fsd_inference.network.importing.torch_archive import check_archive
from tests.support.cli import Said
from tests.support.onnx_models import LINEAR, TensorProto, W, helper, model, node, numpy_helper

REPOSITORY = Path(__file__).parents[2]
HUGE = 2**40
MATRIX_MARKET = "%%MatrixMarket matrix "
COORDINATE = f"{MATRIX_MARKET}coordinate real general\n"


def onnx(*nodes: Any, **constants: NDArray[Any]) -> bytes:
    """Return a model with one wide layer before some nodes that read its output h."""
    made: bytes = model([LINEAR, *nodes], W | constants).SerializeToString()
    return made


def changed(change: Callable[[Any], object], *nodes: Any, **settings: Any) -> bytes:
    proto = model([LINEAR, *nodes], W, **settings)
    change(proto)
    data: bytes = proto.SerializeToString()
    return data


def external(location: str, *dims: int, **entries: int) -> bytes:
    def change(proto: Any) -> None:
        weight = proto.graph.initializer[0]
        weight.ClearField("raw_data")
        weight.dims[:] = dims or weight.dims
        weight.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **entries}.items():
            weight.external_data.add(key=key, value=str(value))

    return changed(change)


def sparse_weights(dims: list[int], places: list[int], values: list[float]) -> bytes:
    stored = numpy_helper.from_array(np.array(values, np.float32), "w")
    indices = numpy_helper.from_array(np.array(places, np.int64), "i")
    tensor = helper.make_sparse_tensor(stored, indices, dims)
    proto: bytes = model([LINEAR], sparse_initializer=[tensor]).SerializeToString()
    return proto


def doubled() -> list[Any]:
    """Return nodes that concatenate a tensor with itself 50 times in turn."""
    names = ["h", *(f"d{k}" for k in range(50))]
    return [node("Concat", name, name, out=after, axis=1) for name, after in itertools.pairwise(names)]


def numbers(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


ONNX = {
    "half": (onnx()[:90], "is truncated, damaged or not an ONNX model"),
    "none": (b"", "is truncated"),
    "no data beside": (external("none.bin"), "'none.bin', which is missing"),
    "data outside": (external("../outside.bin"), "outside the model's folder"),
    "too little data": (external("some.bin", HUGE, 3), "does not hold them"),
    "data at negative": (external("some.bin", offset=-8), "does not hold them"),
    "data of overflow": (external("some.bin", 2**62, 2**62), "does not hold them"),
    "descending": (sparse_weights([4, 3], [7, 2], [1.0, 2.0]), "has indices that do not ascend"),
    "twice": (sparse_weights([4, 3], [2, 2], [1.0, 2.0]), "has indices that do not ascend"),
    "indices past": (sparse_weights([4, 3], [2, HUGE], [1.0, 2.0]), "has indices that do not match"),
    "sparse shape": (sparse_weights([HUGE, 3], [2, 5], [1.0, 2.0]), "is not a vector or matrix of up to"),
    "NaN": (onnx(w=np.full((4, 3), np.nan, np.float32)), "is NaN, infinite or too large"),
    "sparse NaN": (sparse_weights([4, 3], [2, 5], [1.0, np.nan]), "is NaN, infinite or too large"),
    "cycle": (onnx(node("Add", "h", "b", out="a"), node("Relu", "a", out="b")), "which no node before it makes"),
    "opset": (changed(lambda m: setattr(m.opset_import[0], "version", 999)), "has the ONNX opset 999"),
    "no operator": (onnx(node("Frobnicate", "h")), "(Frobnicate) is not"),
    "shape": (changed(lambda m: m.graph.initializer[0].dims.__setitem__(0, HUGE)), "do not fill its shape"),
    "empty shape": (changed(lambda m: m.graph.initializer[0].dims.append(0)), "do not fill its shape"),
    "features": (
        changed(lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", HUGE)),
        "has more than 16,777,216 features",
    ),
    "expand": (onnx(node("Expand", "h", "n"), n=numbers(1, HUGE, 3)), "would mix samples or change their number"),
    "tile": (onnx(node("Tile", "h", "n"), n=numbers(1, HUGE)), "becomes 3,298,534,883,328 connections"),
    "pad": (onnx(node("Pad", "h", "n"), n=numbers(0, 0, 0, HUGE)), "becomes 1,099,511,627,779 connections"),
    "doubled": (onnx(*doubled()), "becomes 98,304 connections"),
    "range": (
        onnx(node("Range", "z", "n", "one", out="r"), z=np.array(0), n=np.array(HUGE), one=np.array(1)),
        "makes a constant of more than",
    ),
    "constant": (onnx(node("ConstantOfShape", "n", out="r"), n=numbers(HUGE)), "makes a constant of more than"),
    "kernel": (
        onnx(
            node("Reshape", "h", "s", out="i"),
            node("MaxPool", "i", kernel_shape=[2**31], pads=[2**31, 2**31]),
            s=numbers(-1, 1, 3),
        ),
        "becomes 4,611,686,027,017,322,496 connections",
    ),
}


def tensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """Return a safetensors file with any header, of any claimed length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def tensor(*shape: int, begin: int = 0, end: int = 0, dtype: str = "F32") -> bytes:
    return tensors({"a.weight": {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}}, bytes(min(end, 64)))


SAVED = save({"a.weight": np.ones((4, 4), np.float32)})
BITMASK: dict[str, NDArray[Any]] = {"a.compressed": np.ones(2, np.float32), "a.row_offsets": np.zeros(1, np.int64)}
SAFETENSORS = {
    "half": (SAVED[:100], "is damaged or of another kind"),
    "header": (tensors({}, length=2**62), "is damaged or of another kind"),
    "deep": (tensors(b'{"a":' + b"[" * 50_000), "is damaged or of another kind"),
    "shape": (tensor(HUGE, HUGE, end=64), "is damaged or of another kind"),
    "no values": (tensor(HUGE, 0), "is not a matrix of outputs x inputs"),
    "past the end": (tensor(4, 1 << 38, end=1 << 42), "is damaged or of another kind"),
    "backwards": (tensor(4, 4, begin=64, end=0), "is damaged or of another kind"),
    "type": (tensor(8, 8, end=64, dtype="F8_E4M3"), "is of type F8_E4M3, but only"),
    "NaN": (save({"a.weight": np.full((2, 2), np.nan, np.float32)}), "is NaN, infinite or too large"),
    "mask": (
        save(BITMASK | {"a.bitmask": np.ones((1, 1), np.uint8), "a.shape": numbers(HUGE, HUGE)}),
        "do not match a matrix of",
    ),
    "row": (
        save(BITMASK | {"a.bitmask": np.ones((1, 1), np.uint8), "a.shape": numbers(1, 8)}),
        "marks 1 values, which does not match the 2",
    ),
}


def npy(shape: tuple[int, ...], data: bytes = b"", dtype: str = "<f4") -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def npz(**arrays: NDArray[Any] | bytes) -> bytes:
    """Return an archive of arrays, or of members with any content."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            if not isinstance(array, bytes):
                np.save(member, array)
            archive.writestr(f"{name}.npy", array if isinstance(array, bytes) else member.getvalue())
    return target.getvalue()


def csr(shape: NDArray[Any], indices: NDArray[Any], data: NDArray[Any] | bytes) -> bytes:
    return npz(format=np.array(b"csr"), shape=shape, indices=indices, indptr=numbers(0, 1, 2), data=data)


TWO, PLACES = np.ones(2, np.float32), numbers(0, 1)
MATRICES = {
    "shape.npy": (npy((HUGE, HUGE)), "but its array of shape"),
    "rows.npy": (npy((HUGE, 0)), "needs 1 to 2147483647 inputs and outputs"),
    "half.npy": (npy((4, 4), bytes(32)), "but its array of shape"),
    "NaN.npy": (npy((1, 1), np.float32(np.nan).tobytes()), "is NaN, infinite or too large"),
    "objects.npy": (npy((1, 1), bytes(8), "|O"), "not an array of plain numbers"),
    "half.npz": (csr(numbers(2, 2), PLACES, TWO)[:200], "is damaged or cannot be read"),
    "member.npz": (csr(numbers(2, 2), PLACES, npy((HUGE,))), "its size does not fit its array of shape"),
    "shape.npz": (csr(numbers(HUGE, HUGE), PLACES, TWO), "rows or columns, but only 2 weights"),
    "columns.npz": (csr(numbers(2, 2), numbers(0, HUGE), TWO), "indices has numbers that are not in 0 to 1"),
    "NaN.npz": (csr(numbers(2, 2), PLACES, TWO * np.float32(np.nan)), "is NaN, infinite or too large"),
    "shape.mtx": (f"{COORDINATE}{HUGE} {HUGE} 1\n1 1 1\n".encode(), "rows or columns, but only 1 weights"),
    "entries.mtx": (f"{COORDINATE}2 2 {HUGE}\n1 1 1\n".encode(), f"has 1 entries, but its header says {HUGE}"),
    "dense.mtx": (
        f"{MATRIX_MARKET}array real general\n{HUGE} {HUGE}\n1\n".encode(),
        f"has 1 entries, but its header says {HUGE**2}",
    ),
    "place.mtx": (f"{COORDINATE}2 2 1\n1 {HUGE} 1\n".encode(), "is not a whole number in 1 to 2"),
    "NaN.mtx": (f"{COORDINATE}1 1 1\n1 1 nan\n".encode(), "is not a finite float32 number"),
    "half.mtx.gz": (gzip.compress(f"{COORDINATE}1 1 1\n1 1 1\n".encode(), mtime=0)[:-12], "is truncated or damaged"),
}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Said]:
    """Import each file in one process of bounded memory."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "some.bin").write_bytes(bytes(48))
    (folder.parent / "outside.bin").write_bytes(bytes(48))
    commands = {}
    for name, (content, _) in ONNX.items():
        (folder / f"{name}.onnx").write_bytes(content)
        commands[f"{name}.onnx"] = ["--most-connections", "80000", "--no-check", str(folder / f"{name}.onnx")]
    for name, (content, _) in SAFETENSORS.items():
        (folder / f"{name}.safetensors").write_bytes(content)
        commands[f"{name}.safetensors"] = ["--layers", "a", str(folder / f"{name}.safetensors")]
    for name, (content, _) in MATRICES.items():
        stem, _, suffix = name.partition(".")
        (folder / f"{stem} {suffix}").mkdir()
        (folder / f"{stem} {suffix}" / f"layer-1.{suffix}").write_bytes(content)
        commands[name] = [str(folder / f"{stem} {suffix}")]
    every = [["network", "import", *command, "-o", str(folder / "net")] for command in commands.values()]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.bounded_memory", "1500000000"],
        cwd=REPOSITORY,
        input=json.dumps(every),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert not (folder / "net").exists()
    return {name: Said(code, "", err) for name, (code, err) in zip(commands, json.loads(done.stdout), strict=True)}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        *((f"{name}.onnx", says) for name, (_, says) in ONNX.items()),
        *((f"{name}.safetensors", says) for name, (_, says) in SAFETENSORS.items()),
        *((name, says) for name, (_, says) in MATRICES.items()),
    ],
)
def test_files_that_cannot_be_imported(said: dict[str, Said], name: str, says: str) -> None:
    assert said[name].code == 2
    assert says in said[name].error()


def pt2(**members: int) -> bytes:
    """Return an archive with the members of an exported program, some of which claim another size."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in ("models/model", "data/weights/model_weights_config", "data/constants/model_constants_config"):
            archive.writestr(f"m/{name}.json", "{}")
            info = archive.getinfo(f"m/{name}.json")
            info.file_size = members.get(name.rpartition("/")[2], info.file_size)
        archive.writestr("m/data/sample_inputs/model.pt", "")
    return target.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (pt2()[:-30], "is truncated, damaged or not an exported program"),
        (pt2(model=HUGE), "models/model.json is larger than that of any exported program"),
        (pt2(model_weights_config=HUGE), "model_weights_config.json is larger than that of any exported program"),
    ],
)
def test_exported_programs_are_refused_before_pytorch_reads_them(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "model.pt2").write_bytes(content)
    with pytest.raises(FileFormatError, match=says):
        check_archive(tmp_path / "model.pt2", None)
