"""How ONNX files store constants, and files that cannot be read."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fsd_inference.errors import FileFormatError, SettingError
from fsd_inference.network import import_network
from fsd_inference.network.importing.model_files import is_onnx
from fsd_inference.network.importing.onnx_file import without_values
from tests.support.onnx_models import (
    LINEAR,
    PER_OUTPUT,
    Array,
    TensorProto,
    W,
    agrees,
    helper,
    matrix,
    model,
    node,
    numpy_helper,
    onnx,
    refused,
    saved,
)


@pytest.mark.parametrize("number", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE])
def test_weights_of_each_float_type(tmp_path: Path, number: int) -> None:
    exact = np.round(matrix(4, 3) * 4) / 4
    weight = helper.make_tensor("raw", number, (4, 3), exact.ravel())
    proto = model([node("Cast", "raw", out="w", to=TensorProto.FLOAT), LINEAR])
    proto.graph.initializer.append(weight)
    network = agrees(tmp_path, proto)
    assert np.array_equal(network.layer(0).weights.toarray(), exact.T)


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_quantized_weights(tmp_path: Path, axis: int | None) -> None:
    size = () if axis is None else ((4,), (3,))[axis]
    constants: dict[str, Array] = {
        "q": np.arange(-6, 6, dtype=np.int8).reshape(4, 3),
        "scale": np.full(size, 0.3, np.float32),
        "zero": np.full(size, 2, np.int8),
    }
    attributes = {} if axis is None else {"axis": axis}
    agrees(tmp_path, model([node("DequantizeLinear", "q", "scale", "zero", out="w", **attributes), LINEAR], constants))


@pytest.mark.parametrize("coordinates", [False, True])
def test_sparse_initializers(tmp_path: Path, coordinates: bool) -> None:
    dense = W["w"]
    places = np.argwhere(dense) if coordinates else np.flatnonzero(dense)
    values = numpy_helper.from_array(dense[dense != 0], "w")
    tensor = helper.make_sparse_tensor(values, numpy_helper.from_array(places.astype(np.int64), "i"), [4, 3])
    network = import_network(saved(tmp_path, model([LINEAR], sparse_initializer=[tensor])))
    assert np.array_equal(network.layer(0).weights.toarray(), dense.T)
    turned = [node("Transpose", "w", out="t"), node("Gemm", "x", "t", transB=1, alpha=2.0)]
    network = import_network(saved(tmp_path, model(turned, sparse_initializer=[tensor])))
    assert np.array_equal(network.layer(0).weights.toarray(), 2 * dense.T)
    tensor.dims[0] = 3 if coordinates else 1
    assert "has indices that do not match" in refused(tmp_path, model([LINEAR], sparse_initializer=[tensor]))
    tensor.dims[0] = 2**40
    assert "is not a vector or matrix of up to" in refused(tmp_path, model([LINEAR], sparse_initializer=[tensor]))


def external(folder: Path, location: str, **entries: int) -> Any:
    proto = model([LINEAR], W)
    weight = proto.graph.initializer[0]
    (folder / "w.bin").write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        weight.external_data.add(key=key, value=str(value))
    return proto


def test_external_data(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    network = import_network(saved(folder, external(folder, "w.bin", offset=0, length=48)))
    assert np.array_equal(network.layer(0).weights.toarray(), W["w"].T)
    (tmp_path / "out.bin").write_bytes(bytes(48))
    (folder / "link.bin").symlink_to(tmp_path / "out.bin")
    for location in ["../out.bin", str(tmp_path / "out.bin"), "link.bin"]:
        assert "outside the model's folder; move it into that folder" in refused(folder, external(folder, location))
    assert "'none.bin', which is missing" in refused(folder, external(folder, "none.bin"))
    assert "needs 48 bytes at 4 in 'w.bin'" in refused(folder, external(folder, "w.bin", offset=4))
    assert "does not hold them" in refused(folder, external(folder, "w.bin", length=47))


def test_files_are_parsed_without_the_values_of_initializers(tmp_path: Path) -> None:
    proto = model([LINEAR, node("Add", "h", "c")], W | {"c": PER_OUTPUT})
    listed = proto.graph.initializer.add(name="listed", dims=[300], data_type=TensorProto.FLOAT)
    listed.float_data.extend(range(300))
    path = saved(tmp_path, proto)
    data = path.read_bytes()
    with path.open("rb") as stream:
        small, places = without_values(stream, len(data))
    found = onnx.ModelProto.FromString(small)
    raw = [None if place is None else data[place.offset : place.offset + place.length] for place in places]
    assert raw == [W["w"].tobytes(), PER_OUTPUT.tobytes(), None]
    for tensor, values in zip(found.graph.initializer, raw, strict=True):
        assert not tensor.raw_data
        tensor.raw_data = values or b""
    for tensor in proto.graph.initializer:
        tensor.raw_data = tensor.raw_data  # now a field of all
    assert found == proto


def changed(change: Callable[[Any], object]) -> Any:
    proto = model([LINEAR], W)
    change(proto)
    return proto


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: setattr(m, "ir_version", 999), " has the ONNX IR version 999, but the installed onnx reads"),
        (lambda m: setattr(m.opset_import[0], "version", 999), " has the ONNX opset 999, but 7 to"),
        (lambda m: setattr(m.opset_import[0], "version", 6), " has the ONNX opset 6, but 7 to"),
        (lambda m: m.ClearField("opset_import"), " has the ONNX opset none, but 7 to"),
        (lambda m: m.graph.initializer[0].dims.__setitem__(0, 2**40), "do not fill its shape, 1099511627776 x 3"),
        (lambda m: m.graph.initializer[0].dims.__setitem__(0, -4), "has a negative dimension"),
        (lambda m: setattr(m.graph.initializer[0], "data_type", 8), "is of type STRING"),
        (lambda m: m.graph.input.add(name="z"), "the model has 2 inputs, not one"),
        (lambda m: m.graph.output.add(name="z"), "the model has 2 outputs ('h', 'z'), not one"),
        (lambda m: setattr(m.graph.output[0], "name", "z"), "has the output 'z', which no node makes"),
        (lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 7), "its input 'x' is of type INT64"),
        (lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 2**40), "more than 16,777,216"),
        (lambda m: m.graph.input[0].type.tensor_type.shape.dim.pop(), "does not have the shape samples x features"),
        (
            lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], "dim_param", "W"),
            "sample open (samples x ?);",
        ),
    ],
)
def test_models_that_cannot_be_read(tmp_path: Path, change: Callable[[Any], object], said: str) -> None:
    assert said in refused(tmp_path, changed(change))


def test_truncated_files(tmp_path: Path) -> None:
    data = model([LINEAR, node("Relu", "h")], W | {"c": PER_OUTPUT}).SerializeToString()
    path = tmp_path / "model.onnx"
    for size in range(0, len(data) - 8, 7):  # the last bytes are the opset
        path.write_bytes(data[:size])
        with pytest.raises(FileFormatError, match=r"model\.onnx"):
            import_network(path)


def test_a_safetensors_file_whose_length_looks_like_a_model() -> None:
    length = (0x120108).to_bytes(8, "little")
    assert is_onnx(Path("model"), length + b"x")
    assert not is_onnx(Path("model"), length + b"{")


def test_settings_of_other_formats_and_a_missing_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, model([LINEAR], W))
    with pytest.raises(SettingError, match=r"transpose cannot be set for .*, which is an ONNX model; leave it out"):
        import_network(path, transpose=True)
    renamed = path.rename(tmp_path / "model")
    assert import_network(renamed).widths == (4, 3)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(SettingError) as caught:
        import_network(renamed)
    assert str(caught.value) == f"{renamed} needs onnx, which is not installed: pip install 'fsd-inference[onnx]'"
