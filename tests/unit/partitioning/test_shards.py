"""The shard files of ranks: contents, round trips, atomic replacement, and errors for corrupt files."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from scipy import sparse

from fsd_inference.errors import FileFormatError, InputError
from fsd_inference.network import Activation, Layer, Network
from fsd_inference.partitioning import (
    ExchangePlan,
    Manifest,
    Partition,
    exchange_plan,
    load_plan,
    load_shard,
    partition_network,
    plan_digest,
    rank_plans,
    read_manifest,
    read_plan,
    read_shard,
    share_rows,
    volumes,
    write_shards,
)
from fsd_inference.partitioning.kernel_shard import kernel_shard
from fsd_inference.partitioning.shard_reader import whole_shard

from .networks import cut_networks, distributed, make_network, merged, serial


def written(
    network: Network, partition: Partition, plan: ExchangePlan | None = None
) -> tuple[Manifest, dict[str, bytes]]:
    files: dict[str, bytes] = {}
    manifest = write_shards(network, partition, files.__setitem__, plan=plan)
    assert list(files)[-1] == "manifest.json"
    assert Manifest.from_bytes(files["manifest.json"]) == manifest
    return manifest, files


@given(cut_networks(), st.booleans())
def test_shards_hold_every_connection_once(cut: tuple[Network, Partition], merge: bool) -> None:
    network, partition = cut
    plan = exchange_plan(network, partition)
    plan = merged(plan) if merge else plan
    manifest, files = written(network, partition, plan)
    shards = [read_shard(files[entry.file], manifest, r) for r, entry in enumerate(manifest.shards)]
    for k, layer in enumerate(network):
        whole = layer.kernel_arrays()
        rebuilt = np.zeros(layer.shape, np.float32)
        bias = np.full(layer.shape[0], np.nan, np.float32)
        for shard in shards:
            part = shard.parts[k]
            suppliers: list[np.ndarray[Any, Any]] = [
                partition.rows(k - 1, shard.rank) if k else np.arange(layer.shape[1])
            ]
            for source, number, size in part.receives:
                edge = [e for e in plan.exchanges[k - 1] if e.source == source][number]
                assert edge.rows.size == size
                suppliers.append(edge.rows)
            placed = zip(part.column_source, part.column_row, strict=True)
            columns = np.array([suppliers[s][r] for s, r in placed], np.int64)
            assert (np.diff(columns) > 0).all()
            assert part.columns == columns.size == np.unique(part.indices).size
            kinds = [group[1:] for group in whole.groups for _ in range(group[0])]
            assert [group[1:] for group in part.groups for _ in range(group[0])] == [kinds[row] for row in part.rows]
            assert part.zero_preserving == whole.zero_preserving
            np.testing.assert_array_equal(part.slopes, whole.slopes[part.rows] if whole.slopes.size else [])
            assert part.indices.dtype == np.uint16
            values = part.values if part.values.size == part.indices.size else np.repeat(part.values, part.indices.size)
            assert (whole.values.size == 1) <= (part.values.size == 1)
            rows = np.repeat(part.rows, np.diff(part.indptr))
            assert not rebuilt[rows, columns[part.indices]].any()
            rebuilt[rows, columns[part.indices]] = values
            bias[part.rows] = part.bias
        assert (rebuilt == layer.weights.toarray()).all()
        assert (bias == layer.bias).all()


@given(cut_networks(), st.sampled_from([merged, share_rows, None]))
def test_ranks_compute_what_scipy_computes(
    cut: tuple[Network, Partition], merge: Callable[[ExchangePlan], ExchangePlan] | None
) -> None:
    network, partition = cut
    plan = exchange_plan(network, partition)
    manifest, files = written(network, partition, merge(plan) if merge else plan)
    shards = [read_shard(files[entry.file], manifest, r) for r, entry in enumerate(manifest.shards)]
    x = np.random.default_rng(1).standard_normal((network.widths[0], 3)).astype(np.float32)
    assert (distributed(shards, x, network.widths[-1]) == serial(network, x)).all()


@given(cut_networks())
def test_plan_and_rank_plans_survive_the_files(cut: tuple[Network, Partition]) -> None:
    network, partition = cut
    plan = share_rows(exchange_plan(network, partition))
    manifest, files = written(network, partition)
    read, read_back = read_plan(files["plan.safetensors"], manifest)
    assert plan_digest(network.digest, read, read_back) == manifest.plan_digest
    assert plan_digest(network.digest, partition, plan) == manifest.plan_digest
    shards = [read_shard(files[entry.file], manifest, r) for r, entry in enumerate(manifest.shards)]
    assert tuple(shard.plan for shard in shards) == rank_plans(read, read_back)


def test_manifest_says_what_the_shards_are_of() -> None:
    network = make_network([6, 8, 7], seed=3)
    partition = partition_network(network, 3, "random", 5)
    plan = share_rows(exchange_plan(network, partition))
    manifest = write_shards(network, partition, lambda *_: None, method="random", seed=5, seconds=0.5)
    assert (manifest.workers, manifest.method, manifest.seed) == (3, "random", 5)
    assert (manifest.features, manifest.layers, manifest.widths) == (6, 2, (6, 8, 7))
    assert (manifest.network_digest, manifest.connections) == (network.digest, network.connections)
    assert manifest.volumes == volumes(network, partition, plan, 0.5)


def test_many_columns_take_uint32_indices() -> None:
    wide = sparse.csr_array(np.arange(1, 65539, dtype=np.float32).reshape(1, -1))
    manifest, files = written(Network([Layer(wide, 0.0)]), Partition(1, (np.zeros(1, np.int32),)))
    part = read_shard(files[manifest.shards[0].file], manifest, 0).parts[0]
    assert part.indices.dtype == np.uint32
    assert (part.values == wide.data).all()


def test_arrays_are_aligned_views_that_cannot_be_written() -> None:
    manifest, files = written(*_small())
    for rank, entry in enumerate(manifest.shards):
        for part in read_shard(files[entry.file], manifest, rank).parts:
            for array in (part.rows, part.indptr, part.indices, part.values, part.bias, part.column_row):
                assert array.flags.aligned
                assert array.flags.c_contiguous
                assert not array.flags.writeable


def _small() -> tuple[Network, Partition]:
    network = make_network([6, 8, 7, 9], seed=3)
    return network, partition_network(network, 3, "random")


def test_directory_round_trip_and_replacement(tmp_path: Path) -> None:
    network, partition = _small()
    target = tmp_path / "deep" / "shards"
    for _ in range(2):  # the second replaces the first
        manifest = write_shards(network, partition, target)
    assert read_manifest(target) == manifest
    assert sorted(path.name for path in target.parent.iterdir()) == ["shards"]
    assert sorted(path.name for path in target.iterdir()) == [
        "manifest.json",
        "plan.safetensors",
        *(f"rank-{r:05d}.safetensors" for r in range(3)),
    ]
    shard = load_shard(target, 2)
    assert shard.plan == rank_plans(*load_plan(target))[2]
    with safe_open(target / "rank-00002.safetensors", "numpy") as file:  # the reference reader agrees
        assert (file.get_tensor("layers.00001.indptr") == shard.parts[1].indptr).all()


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    with pytest.raises(InputError, match="holds no shards"):
        write_shards(*_small(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    network, partition = _small()
    plan = ExchangePlan(3, ((), ()))
    with pytest.raises(InputError, match="does not send row"):
        write_shards(network, partition, tmp_path / "shards", plan=plan)
    assert list(tmp_path.iterdir()) == []


def test_missing_files_and_ranks_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"manifest\.json: cannot be read"):
        read_manifest(tmp_path)
    write_shards(*_small(), tmp_path / "shards")
    (tmp_path / "shards" / "rank-00001.safetensors").unlink()
    with pytest.raises(FileFormatError, match=r"rank-00001\.safetensors: cannot be read"):
        load_shard(tmp_path / "shards", 1)
    with pytest.raises(InputError, match="no shard of rank 3"):
        load_shard(tmp_path / "shards", 3)


def edited(data: bytes, name: str, edit: Callable[[np.ndarray[Any, Any]], Any]) -> bytes:
    """Return a safetensors file in which one tensor's array was edited in place or replaced."""
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    dtypes = {"U8": "u1", "U16": "<u2", "U32": "<u4", "I32": "<i4", "I64": "<i8", "F32": "<f4"}
    new, body = {}, b""
    for key, entry in header.items():
        if key == "__metadata__":
            new[key] = entry
            continue
        start, end = entry["data_offsets"]
        array = np.frombuffer(data[8 + length + start : 8 + length + end], dtypes[entry["dtype"]]).copy()
        array = array.reshape(entry["shape"])
        if key == name:
            result = edit(array)
            array = array if result is None else result
        codes = {v: k for k, v in dtypes.items()} | {"|u1": "U8"}
        code = codes.get(array.dtype.str, codes.get(array.dtype.str.lstrip("<|")))
        new[key] = {"dtype": code, "shape": array.shape, "data_offsets": [len(body), len(body) + array.nbytes]}
        body += array.tobytes()
    assert name in header
    head = json.dumps(new).encode()
    return struct.pack("<Q", len(head)) + head + body


def put(index: Any, value: Any) -> Callable[[np.ndarray[Any, Any]], None]:
    return lambda array: array.__setitem__(index, value)


CORRUPTIONS: list[tuple[str, Callable[[np.ndarray[Any, Any]], Any], str]] = [
    ("rows", put(1, 0), "layer 1, tensor rows: must ascend"),
    ("rows", put(-1, 8), "layer 1, tensor rows: names a neuron beyond"),
    ("rows", lambda a: a.astype(np.int32), "layer 1, tensor rows: must be uint32"),
    ("indptr", put(0, 1), "layer 1, tensor indptr"),
    ("indptr", put(-1, 1 << 40), "layer 1, tensor indptr"),
    ("indptr", lambda a: a[:-1], "layer 1, tensor indptr"),
    ("indices", put(0, 60000), "layer 1, tensor indices: names column"),
    ("indices", put(slice(None), 0), "layer 1, tensor indices: must ascend"),
    ("values", put(0, np.nan), "layer 1, tensor values: a number is not finite"),
    ("values", lambda a: a[:-1], "layer 1, tensor values"),
    ("bias", put(0, np.inf), "layer 1, tensor bias: a number is not finite"),
    ("bias", lambda a: np.zeros(7, np.float32), "layer 1, tensor bias"),
    ("column_source", put(0, 9), "layer 1, tensor column_source"),
    ("column_row", put(0, 9), "layer 1, tensor column_row"),
    ("column_row", lambda a: a[1:], "layer 1, tensor column_row"),
    ("receives", put((0, 0), 9), "layer 1, tensor receives"),
    ("receives", put((0, 2), 0), "layer 1, tensor receives"),
    ("receives", lambda a: a[::-1].copy(), "layer 1, tensor receives: edges must ascend"),
    ("send_sizes", put((0, 1), 0), "layer 1, tensor send_"),
    ("send_sizes", put((0, 1), 1 << 31), "layer 1, tensor send_rows"),
    ("send_targets", put(0, 9), "layer 1, tensor send_targets"),
    ("send_rows", put(0, 9), "layer 1, tensor send_rows"),
]


@pytest.mark.parametrize(("tensor", "edit", "message"), CORRUPTIONS)
def test_a_shard_that_cannot_be_is_refused_by_name(
    tensor: str, edit: Callable[[np.ndarray[Any, Any]], Any], message: str
) -> None:
    network = make_network([6, 8, 7, 9], seed=3, density=0.9)
    manifest, files = written(network, partition_network(network, 3, "block"))
    entry = manifest.shards[1]
    data = edited(files[entry.file], f"layers.00001.{tensor}", edit)
    with pytest.raises(FileFormatError, match=r"digest|bytes"):
        read_shard(data, manifest, 1)
    forged = replace(entry, size=len(data), sha256=hashlib.sha256(data).hexdigest(), head=None)
    forged_manifest = replace(manifest, shards=(manifest.shards[0], forged, manifest.shards[2]))
    with pytest.raises(FileFormatError, match=message) as caught:
        read_shard(data, forged_manifest, 1)
    assert entry.file in str(caught.value)


def with_head(data: bytes, change: Callable[[Any], object]) -> bytes:
    """Return a shard file with other metadata."""
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    shard = json.loads(header["__metadata__"]["fsd_shard"])
    change(shard)
    header["__metadata__"]["fsd_shard"] = json.dumps(shard)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)  # tensors stay aligned
    return struct.pack("<Q", len(head)) + head + data[8 + length :]


@pytest.mark.parametrize("group", [[np.inf, "sum", "relu", []], [3, "sum", "clip", [10**400, 0]], ["relu"], 3])
def test_groups_of_a_shard_that_cannot_be_are_refused(group: Any) -> None:
    _, files = written(*_small())
    data = with_head(files["rank-00000.safetensors"], lambda head: head["layers"][0].update(groups=[group]))
    with pytest.raises(FileFormatError, match=r"^rank 0: not a shard"):
        whole_shard(data, "rank 0")


def test_shards_of_version_1_are_read() -> None:
    kinds = {"identity": 0.0, "relu": 0.0, "clipped_relu": 3.0}
    layers = [
        Layer(np.eye(4), -1, Activation(kind, *([clip] if clip else [])))  # type: ignore[arg-type]
        for kind, clip in kinds.items()
    ]
    network = Network(layers)
    _, files = written(network, partition_network(network, 2, "block"))
    data = files["rank-00001.safetensors"]

    def as_before(head: dict[str, Any]) -> None:
        head["version"] = 1
        for layer, (kind, clip) in zip(head["layers"], kinds.items(), strict=True):
            for name in ("groups", "boundary", "sha256"):
                del layer[name]
            layer |= {"activation": kind, "clip": clip}

    expected, found = (whole_shard(each, "rank 1").whole() for each in (data, with_head(data, as_before)))
    for ours, theirs in zip(found.parts, expected.parts, strict=True):
        assert ours.groups == theirs.groups
        np.testing.assert_array_equal(ours.values, theirs.values)
    kernel_shard(found)


def test_shards_of_later_versions_are_refused_as_such() -> None:
    _, files = written(*_small())

    def later(head: dict[str, Any]) -> None:
        head["version"] = 3
        for layer in head["layers"]:
            del layer["groups"]

    with pytest.raises(FileFormatError, match="shard format 3 is not known; this release reads 1 and 2"):
        whole_shard(with_head(files["rank-00000.safetensors"], later), "rank 0")


PLAN_CORRUPTIONS: list[tuple[str, Callable[[np.ndarray[Any, Any]], Any], str]] = [
    ("owners", put(0, 3), "owners names a rank"),
    ("owners", lambda a: a[1:], "one entry per neuron"),
    ("widths", put(0, 0), "one entry per neuron"),
    ("edge_sizes", put((0, 3), 1 << 20), "edge_sizes does not fit"),
    ("edge_sizes", put((0, 0), 7), "does not fit the partition"),
    ("edge_targets", put(0, 5), "does not fit the partition"),
    ("edge_rows", put(0, 99), "does not fit the partition"),
    ("edge_rows", lambda a: a.astype(np.int64), "edge_rows is missing or not"),
]


@pytest.mark.parametrize(("tensor", "edit", "message"), PLAN_CORRUPTIONS)
def test_a_plan_that_cannot_be_is_refused(
    tensor: str, edit: Callable[[np.ndarray[Any, Any]], Any], message: str
) -> None:
    manifest, files = written(*_small())
    data = edited(files["plan.safetensors"], tensor, edit)
    entry = replace(manifest.plan, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(FileFormatError, match=message):
        read_plan(data, replace(manifest, plan=entry))


@given(st.data())
def test_damaged_bytes_never_get_through(data: st.DataObject) -> None:
    """Any damage is a FileFormatError, also where a forged manifest vouches for it, or the shard is still whole."""
    manifest, files = written(*_small())
    entry = manifest.shards[0]
    body = bytearray(files[entry.file])
    if data.draw(st.booleans()):
        body = body[: data.draw(st.integers(0, len(body) - 1))]
    else:
        body[data.draw(st.integers(0, min(4000, len(body) - 1)))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(FileFormatError):
        read_shard(bytes(body), manifest, 0)
    forged = replace(entry, size=len(body), sha256=hashlib.sha256(body).hexdigest(), head=None)
    with suppress(FileFormatError):
        read_shard(bytes(body), replace(manifest, shards=(forged, *manifest.shards[1:])), 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "its format is"),
        ({"version": 2}, "shard format 2 is not known"),
        ({"workers": 2}, "contradict"),
        ({"widths": [6, 8]}, "contradict"),
        ({"plan_digest": "00"}, "contradict"),
        ({"shards": [{"file": "../evil", "size": 1, "sha256": ""}]}, "not the manifest"),
        ({"volumes": None}, "not the manifest"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    manifest, _ = written(*_small())
    value = json.loads(manifest.to_bytes()) | change
    with pytest.raises(FileFormatError, match=message):
        Manifest.from_bytes(json.dumps(value).encode())
    with pytest.raises(FileFormatError, match="not the manifest"):
        Manifest.from_bytes(b"[1")
