"""Networks from state dicts in safetensors: types, masks, bitmasks and shards, and everything that is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from fsd_inference.errors import FileFormatError, InputError, SettingError
from fsd_inference.network import IDENTITY, RELU, Network, import_network

Tensors = dict[str, NDArray[Any]]


def matrix(rows: int, columns: int, seed: int = 0) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    return (random.standard_normal((rows, columns)) * (random.random((rows, columns)) < 0.4)).astype(np.float32)


def model() -> Tensors:
    return {
        "fc1.weight": matrix(6, 11),
        "fc1.bias": np.arange(6, dtype=np.float32),
        "fc2.weight": matrix(5, 6, 1),
        "fc10.weight": matrix(3, 5, 2),
        "fc10.bias": np.ones(3, np.float32),
    }


CHAIN = ["fc1", "fc2", "fc10"]


def saved(folder: Path, tensors: Tensors, name: str = "model.safetensors") -> Path:
    save_file({key: np.ascontiguousarray(array) for key, array in tensors.items()}, folder / name)
    return folder / name


def write_raw(file: Path, name: str, dtype: str, shape: tuple[int, ...], data: bytes) -> Path:
    """Write a file of one tensor of a type that NumPy lacks, as the format's description has it."""
    header = json.dumps({name: {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return file


def dense(network: Network) -> list[NDArray[Any]]:
    return [layer.weights.toarray() for layer in network]


def test_a_chain_of_layers(tmp_path: Path) -> None:
    tensors = model()
    network = import_network(saved(tmp_path, tensors), layers=CHAIN)
    assert [layer.activation for layer in network] == [RELU, RELU, IDENTITY]
    for name, layer in zip(CHAIN, network, strict=True):
        assert np.array_equal(layer.weights.toarray(), tensors[f"{name}.weight"])
        assert layer.connections == np.count_nonzero(tensors[f"{name}.weight"])
    assert [layer.bias.tolist() for layer in network] == [[0, 1, 2, 3, 4, 5], [0], [1, 1, 1]]
    assert (network.name, network.origin) == ("model", "safetensors model.safetensors, layers fc1, fc2, fc10")


def test_what_is_not_of_the_chain_is_named(tmp_path: Path) -> None:
    tensors = model() | {"bn.weight": np.ones(6, np.float32), "steps": np.array(3)}
    network = import_network(saved(tmp_path, tensors), layers=["fc1", "fc2"])
    assert network.origin is not None
    kept, left_out = network.origin.split("; left out: ")
    assert kept == "safetensors model.safetensors, layers fc1, fc2"
    assert set(left_out.split(", ")) == {"bn.weight", "steps", "fc10.weight", "fc10.bias"}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numbers_of_any_float_type(tmp_path: Path, dtype: type) -> None:
    weight = matrix(4, 9).astype(dtype) / 3
    file = saved(tmp_path, {"a.weight": weight, "a.bias": weight[:, 0]})
    network = import_network(file, layers=["a"])
    assert np.array_equal(dense(network)[0], weight.astype(np.float32))
    assert np.array_equal(network.layer(0).bias, weight[:, 0].astype(np.float32))


def test_every_finite_bfloat16_is_widened_exactly(tmp_path: Path) -> None:
    patterns = np.arange(2**16, dtype=np.uint32)
    patterns[(patterns >> 7) & 0xFF == 0xFF] = 0  # infinities and NaNs
    sign = np.where(patterns >> 15, -1.0, 1.0)
    exponent, fraction = ((patterns >> 7) & 0xFF).astype(int), (patterns & 0x7F) / 128
    with np.errstate(under="ignore"):  # what a bfloat16 is by definition, in float64, which holds it exactly
        values = sign * np.where(exponent, np.ldexp(1 + fraction, exponent - 127), np.ldexp(fraction, -126))
    data = patterns.astype("<u2").tobytes()
    file = write_raw(tmp_path / "model.safetensors", "a.weight", "BF16", (256, 256), data)
    assert np.array_equal(dense(import_network(file, layers=["a"]))[0], values.reshape(256, 256))


def test_pruned_tensors_are_multiplied_with_their_masks(tmp_path: Path) -> None:
    weight, mask = matrix(5, 6) + 1, np.random.default_rng(3).random((5, 6)) < 0.3
    file = saved(
        tmp_path,
        {
            "a.weight_orig": weight,
            "a.weight_mask": mask.astype(np.float32),
            "a.bias_orig": np.arange(5, dtype=np.float32),
            "a.bias_mask": np.array([0, 1, 1, 0, 1], np.float32),
        },
    )
    network = import_network(file, layers=["a"])
    assert np.array_equal(dense(network)[0], np.where(mask, weight, 0))
    assert network.connections == mask.sum()
    assert network.layer(0).bias.tolist() == [0, 1, 2, 0, 4]
    assert network.origin == "safetensors model.safetensors, layers a"


def compressed(weight: NDArray[Any], prefix: str) -> Tensors:
    """Return the tensors of compressed-tensors' format "sparse-bitmask", worked out row by row."""
    rows, columns = weight.shape
    bitmask = np.zeros((rows, (columns + 7) // 8), np.uint8)
    values: list[Any] = []
    offsets: list[int] = []
    for i in range(rows):
        offsets.append(len(values))
        for j in range(columns):
            if weight[i, j] != 0:
                bitmask[i, j // 8] |= 1 << (j % 8)
                values.append(weight[i, j])
    return {
        f"{prefix}.shape": np.array(weight.shape),
        f"{prefix}.compressed": np.array(values, weight.dtype),
        f"{prefix}.bitmask": bitmask,
        f"{prefix}.row_offsets": np.array(offsets),
    }


@pytest.mark.parametrize("columns", [1, 7, 8, 9, 64, 65])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("prefix", ["a", "a.weight"])
def test_bitmasks_are_decompressed(tmp_path: Path, columns: int, dtype: type, prefix: str) -> None:
    weight: NDArray[Any] = matrix(9, columns).astype(dtype)
    weight[4] = 0
    network = import_network(saved(tmp_path, compressed(weight, prefix)), layers=["a"])
    assert np.array_equal(dense(network)[0], weight.astype(np.float32))
    assert network.connections == np.count_nonzero(weight)
    assert network.origin == "safetensors model.safetensors, layers a"


def sharded(folder: Path, **changes: str) -> Path:
    tensors = model()
    weight_map = {name: f"model-{'1' if name.startswith('fc1.') else '2'}.safetensors" for name in tensors}
    for file in set(weight_map.values()):
        saved(folder, {name: array for name, array in tensors.items() if weight_map[name] == file}, file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map | changes}))
    return index


def test_a_sharded_model(tmp_path: Path) -> None:
    network = import_network(sharded(tmp_path), layers=CHAIN)
    whole = import_network(saved(tmp_path, model(), "whole.safetensors"), layers=CHAIN)
    assert network.digest == whole.digest
    assert (network.name, network.origin) == (
        "model",
        "safetensors model.safetensors.index.json, layers fc1, fc2, fc10",
    )


def test_all_problems_of_an_index_are_listed(tmp_path: Path) -> None:
    index = sharded(tmp_path, gone="model-1.safetensors", away="model-3.safetensors", up="../model-1.safetensors")
    with pytest.raises(FileFormatError, match=r"^3 problems: ") as caught:
        import_network(index, layers=CHAIN)
    for says in (
        "assigns the tensor gone to model-1.safetensors, which does not have it",
        "model-3.safetensors cannot be read",
        "names '../model-1.safetensors', which is not the name of a file in its folder",
    ):
        assert says in str(caught.value)


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', "{", "\xff"])
def test_a_wrong_index_is_refused(tmp_path: Path, content: str) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(content, encoding="latin-1")
    with pytest.raises(FileFormatError, match=re.escape(str(index))):
        import_network(index, layers=["a"])


@pytest.mark.parametrize(
    ("rename", "proposal"),
    [
        ({}, "--layers fc1,fc2,fc10,"),  # by nature: fc10 is behind fc2
        ({"fc1": "encoder", "fc10": "classifier", "fc2": "middle"}, "--layers encoder,middle,classifier,"),
        ({"fc1": "net.0", "fc2": "net.2", "fc10": "net.10"}, "--layers net.0,net.2,net.10,"),
    ],
)
def test_the_only_chain_is_proposed(tmp_path: Path, rename: dict[str, str], proposal: str) -> None:
    tensors = {}
    for name, array in model().items():
        layer, _, kind = name.rpartition(".")
        tensors[f"{rename.get(layer, layer)}.{kind}"] = array
    file = saved(tmp_path, tensors)
    with pytest.raises(SettingError, match=f"name them in order with --layers, such as {proposal}") as caught:
        import_network(file)
    for name, array in tensors.items():
        assert f"{name} ({' x '.join(map(str, array.shape))})" in str(caught.value)


@pytest.mark.parametrize(
    "shapes",
    [
        {"b": (4, 4), "a": (4, 4), "c": (9, 3)},  # no chain
        {"a": (2, 4), "b": (4, 2), "c": (4, 2), "d": (2, 4), "e": (2, 2)},  # several
        {},
    ],
)
def test_no_chain_is_guessed(tmp_path: Path, shapes: dict[str, tuple[int, int]]) -> None:
    file = saved(tmp_path, {f"{name}.weight": np.ones(shape, np.float32) for name, shape in shapes.items()})
    with pytest.raises(SettingError, match="in order with --layers; its tensors are ") as caught:
        import_network(file)
    assert "such as" not in str(caught.value)


def test_the_list_of_tensors_is_bounded(tmp_path: Path) -> None:
    file = saved(tmp_path, {f"fc{k}.weight": np.ones((2, 2), np.float32) for k in range(60)})
    with pytest.raises(SettingError, match=r"--layers fc0,fc1,.*,fc59, .*, fc49\.weight \(2 x 2\), and 10 more$"):
        import_network(file)


def changed(folder: Path, **changes: NDArray[Any] | None) -> Path:
    tensors: dict[str, Any] = model() | {name.replace("_", ".", 1): array for name, array in changes.items()}
    return saved(folder, {name: array for name, array in tensors.items() if array is not None})


def test_all_problems_of_a_chain_are_listed(tmp_path: Path) -> None:
    file = changed(
        tmp_path,
        fc1_weight=np.ones((6, 11), np.int8),
        fc1_bias=np.ones(5, np.float32),
        fc2_weight=np.ones((5, 7), np.float32),
        fc10_weight=np.ones((3, 5, 2, 2), np.float32),
    )
    with pytest.raises(FileFormatError, match=r"^5 problems: ") as caught:
        import_network(file, layers=[*CHAIN, "fc11"])
    for says in (
        "model.safetensors has no fc11.weight; the layers with 2-D weights are fc1, fc2;",
        "fc1.weight is of type I8, but only F64, F32, F16, BF16 are read; convert it",
        "fc1.bias (5) does not match the 6 outputs of fc1.weight",
        "fc10.weight (3 x 5 x 2 x 2) is not a matrix of outputs x inputs; only fully connected layers can be imported",
        "fc2.weight (5 x 7) takes 7 inputs, but ",
    ):
        assert says in str(caught.value)


def test_all_problems_of_values_are_listed(tmp_path: Path) -> None:
    first, last = matrix(6, 11), matrix(3, 5).astype(np.float64)
    first[5, 10], last[0, 0] = np.nan, 1e39
    file = changed(tmp_path, fc1_weight=first, fc10_weight=last, fc10_bias=np.full(3, np.inf, np.float16))
    with pytest.raises(InputError, match=r"^2 problems: .*fc1.weight: the weight of output 5 and input 10 .*fc10.wei"):
        import_network(file, layers=CHAIN).save(tmp_path / "net")
    assert not (tmp_path / "net").exists()


def without(tensors: Tensors, name: str) -> Tensors:
    return {key: array for key, array in tensors.items() if key != name}


PARTS = compressed(matrix(4, 9), "a")


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        (PARTS | {"a.shape": np.array([4, 8, 1])}, "a.shape is not the shape of a matrix"),
        (PARTS | {"a.shape": np.array([4.0, 9.0])}, "a.shape is not the shape of a matrix"),
        (PARTS | {"a.shape": np.array([-4, 9])}, "a.shape is not the shape of a matrix"),
        (PARTS | {"a.shape": np.array([4, 17])}, "a.bitmask (4 x 2, U8) and a.row_offsets (4) do not match a matrix"),
        (PARTS | {"a.shape": np.array([2**40, 2**40])}, "do not match a matrix of 1099511627776 x 1099511627776"),
        (PARTS | {"a.bitmask": PARTS["a.bitmask"].astype(np.int64)}, "a.bitmask (4 x 2, I64) and"),
        (PARTS | {"a.bitmask": PARTS["a.bitmask"] ^ np.uint8(1)}, "which does not match the"),
        (PARTS | {"a.compressed": PARTS["a.compressed"][1:]}, "which does not match the"),
        (PARTS | {"a.row_offsets": PARTS["a.row_offsets"][::-1]}, "which does not match the"),
        (PARTS | {"a.compressed": PARTS["a.compressed"].astype(np.int8)}, "a.weight is of type I8"),
        (PARTS | {"a.weight": matrix(4, 9)}, "a.weight twice"),
        (without(PARTS, "a.row_offsets"), "has no a.weight; the layers with 2-D weights are none"),
        ({"a.weight_orig": matrix(4, 9), "a.weight_mask": matrix(4, 8)}, "have different shapes"),
        ({"a.weight_orig": matrix(4, 9)}, "has no a.weight"),
        ({"a.weight": np.ones((0, 3), np.float32)}, "a.weight (0 x 3) is not a matrix"),
        ({"a.weight": matrix(4, 9), "a.bias": np.ones((4, 1), np.float32)}, "a.bias (4 x 1) does not match the 4"),
    ],
)
def test_wrong_tensors_are_refused(tmp_path: Path, tensors: Tensors, says: str) -> None:
    with pytest.raises(FileFormatError, match=re.escape(says)) as caught:
        list(import_network(saved(tmp_path, tensors), layers=["a"]))
    assert "\n" not in str(caught.value)


def test_other_types_are_refused(tmp_path: Path) -> None:
    file = write_raw(tmp_path / "model.safetensors", "a.weight", "F8_E4M3", (2, 2), bytes(4))
    with pytest.raises(FileFormatError, match=r"a\.weight is of type F8_E4M3, but only F64, F32, F16, BF16 are read"):
        import_network(file, layers=["a"])


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, model())
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(FileFormatError, match=r"model\.safetensors is damaged or of another kind"):
        import_network(file, layers=CHAIN)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("mlp.joblib", b"x\x9c", "mlp.joblib is a pickle, and loading a pickle can run any code"),
        ("model.bin", b"\x80\x04\x95", "model.bin is a pickle, and loading a pickle can run any code"),
        ("model.pt", b"PK\x03\x04", "model.pt is a pickle, and loading a pickle can run any code"),
        ("model.bin", b"PK\x03\x04" + bytes(26) + b"model/data.pkl", "model.bin is a pickle, and loading"),
        ("model.h5", b"\x89HDF\r\n\x1a\n\0", "model.h5 cannot be imported"),
        ("weights.npy", b"\x93NUMPY", "weights.npy holds a matrix; to import it, name it"),
        ("weights.mtx", b"%%MatrixMarket", "weights.mtx holds a matrix; to import it, name it"),
        ("n1024-l1.tsv", b"1\t1\t1\n", "n1024-l1.tsv is one layer of a Graph Challenge network; import its folder"),
        ("empty", b"", "empty cannot be imported"),
        ("config.json", b"{}", 'config.json is not an index of safetensors: it has no "weight_map"'),
    ],
)
def test_files_of_other_kinds_are_told_apart(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileFormatError, match=re.escape(says)):
        import_network(tmp_path / name, layers=["a"])


def test_safetensors_are_known_by_their_content(tmp_path: Path) -> None:
    file = saved(tmp_path, model(), "weights.bin")
    assert len(import_network(file, layers=CHAIN)) == 3


def test_folders_of_other_kinds_are_told_apart(tmp_path: Path) -> None:
    saved(tmp_path, model())
    with pytest.raises(FileFormatError, match=r"import a safetensors file in it, such as \S*model\.safetensors$"):
        import_network(tmp_path)
    sharded(tmp_path)
    with pytest.raises(
        FileFormatError, match=r"import a safetensors file in it, such as \S*model\.safetensors\.index\.json$"
    ):
        import_network(tmp_path)
    Network.from_matrices([matrix(2, 2)]).save(tmp_path / "net")
    with pytest.raises(FileFormatError, match="is already a network of this program"):
        import_network(tmp_path / "net")
    with pytest.raises(FileFormatError, match="absent cannot be read: No such file"):
        import_network(tmp_path / "absent")


@pytest.mark.parametrize("setting", [{"transpose": True}, {"bias": 0.5}])
def test_settings_of_other_sources_are_refused(tmp_path: Path, setting: dict[str, Any]) -> None:
    file = saved(tmp_path, model())
    with pytest.raises(SettingError, match=rf"{next(iter(setting))} cannot be set for .* which is safetensors"):
        import_network(file, layers=CHAIN, **setting)
    with pytest.raises(FileFormatError, match="at least one layer, but none of"):
        import_network(file, layers=[])
    with pytest.raises(InputError, match=r"must be a list of names, such as \['fc1', 'fc2'\], not 'fc1,fc2'"):
        import_network(file, layers="fc1,fc2")
