"""The file format of networks: a directory of safetensors files with groups of layers, and a manifest.

::

    NAME/network.json              manifest: description, file and SHA-256 digest of each layer
    NAME/layers-00000.safetensors  per layer k the tensors "k.indices", "k.values", "k.bias"; "k.indptr" if rows have
    NAME/layers-00001.safetensors  different numbers of connections; "k.slopes" if any activation is "prelu"

Layers are written and read one by one, so neither side holds more than a group in memory. Files are not trusted: sizes
are checked before memory is allocated, and the content of a layer is compared with its digest when it is read.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fsd_inference.atomic import atomic_directory
from fsd_inference.errors import FileFormatError, InputError
from fsd_inference.fields import load_json
from fsd_inference.network.activation import Activation, RowGroup, row_groups
from fsd_inference.network.fidelity import Check
from fsd_inference.network.labels import checked_labels
from fsd_inference.network.layer import Layer, index_dtype
from fsd_inference.network.output_function import OutputFunction, checked_output
from fsd_inference.network.source import LayerSource, network_digest

T = TypeVar("T")

MANIFEST = "network.json"
FORMAT = "fsd-network"
VERSION = 2
_READS = (1, 2)

_GROUP_BYTES = 32 << 20  # few files for a network of 8 GB, yet little memory in addition to one layer
_MANIFEST_BYTES = 64 << 20
_DTYPES = {"U16": np.uint16, "U32": np.uint32, "I64": np.int64, "F32": np.float32}


@dataclass(frozen=True, slots=True)
class _LayerRecord:
    """A layer in the manifest; `degree` is the number of connections per row, None if rows differ in it."""

    inputs: int
    outputs: int
    connections: int
    degree: int | None
    groups: tuple[RowGroup, ...]
    group: int
    digest: bytes


def write_network(
    path: str | os.PathLike[str],
    name: str,
    layers: Iterable[Layer],
    progress: Callable[[int], object] | None = None,
    *,
    origin: str | None = None,
    check: Check | None = None,
    labels: NDArray[Any] | None = None,
    output: OutputFunction | None = None,
) -> None:
    """Write layers into a new directory, one at a time; the directory appears once it is complete.

    Parameters
    ----------
    path : path-like
        The directory to create; a network that is already there is replaced.
    name : str
        Display name of the network.
    layers : iterable of Layer
        Layers of matching widths; the next one is requested only after the previous one is written.
    progress : callable, optional
        Called after each layer with the number of layers written.
    origin : str, optional
        What the network was imported from.
    check : Check, optional
        How it was compared with that.
    labels : ndarray, optional
        What each output stands for.
    output : OutputFunction, optional
        Function of the scores of each sample.

    Raises
    ------
    InputError, OutputError
        If `path` holds anything but a network, or cannot be written.
    """
    with atomic_directory(path, holds="network", replaceable=_is_network) as folder:
        records: list[dict[str, Any]] = []
        sizes: list[int] = []
        group: dict[str, NDArray[Any]] = {}

        def finish_group() -> None:
            file = folder / _group_name(len(sizes))
            try:
                save_file(group, file)
            except SafetensorError as error:  # safetensors reports errors of the operating system as text only
                raise OSError(f"{file.name}: {error}") from error
            sizes.append(file.stat().st_size)
            group.clear()

        for k, layer in enumerate(layers):
            record, tensors = _pack(layer)
            records.append({**record, "group": len(sizes)})
            group.update({f"{k}.{tensor}": array for tensor, array in tensors.items()})
            if sum(array.nbytes for array in group.values()) >= _GROUP_BYTES:
                finish_group()
            if progress is not None:
                progress(k + 1)
        if group:
            finish_group()
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "name": name,
            "digest": network_digest(bytes.fromhex(record["digest"]) for record in records).hex(),
            "group_bytes": sizes,
            "layers": records,
        }
        optional = {
            "origin": origin,
            "check": check and check.to_json(),
            "labels": None if labels is None else labels.tolist(),
            "output": output and output.to_json(),
        }
        manifest |= {key: value for key, value in optional.items() if value is not None}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


class LayersInFiles(LayerSource):
    """The layers of a stored network, read and verified on access.

    Parameters
    ----------
    path : path-like
        The network's directory, or the manifest in it.

    Attributes
    ----------
    name : str
        Display name of the network.
    origin : str or None
        What the network was imported from.
    check : Check or None
        How it was compared with that.
    labels : ndarray or None, shape (n_out,)
        What each output of the last layer stands for.
    output : OutputFunction or None
        Function of the scores of each sample.

    Raises
    ------
    FileFormatError
        If the network is missing, or its manifest or file sizes are wrong; on access to a layer, if its content is
        wrong.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        folder = Path(path)
        if folder.name == MANIFEST:
            folder = folder.parent
        self._folder = folder.absolute()  # the process may change its working directory
        file = folder / MANIFEST
        fields = _Fields(file, "the network", _read_json(file))
        if fields.get("format", str) != FORMAT or (version := fields.get("version", int)) not in _READS:
            known = " or ".join(map(str, _READS))
            raise FileFormatError(f"{file} is not a network of format {FORMAT} version {known}")
        self.name: str = fields.get("name", str)
        sizes = fields.get("group_bytes", list)
        self._records = [
            _read_record(_Fields(file, f"layer {k}", value), version, len(sizes))
            for k, value in enumerate(fields.get("layers", list))
        ]
        if not self._records:
            raise FileFormatError(f"{file}: the network has no layers")
        for k, (before, after) in enumerate(itertools.pairwise(self._records)):
            if before.outputs != after.inputs:
                raise FileFormatError(
                    f"{file}: layer {k + 1} takes {after.inputs} inputs, but layer {k} has {before.outputs} outputs"
                )
        if network_digest(self.layer_digests()).hex() != fields.get("digest", str):
            raise FileFormatError(f"{file}: the digest of the network does not match its layers")
        for group, size in enumerate(sizes):
            _check_size(folder / _group_name(group), size)
        self.widths = (self._records[0].inputs, *(record.outputs for record in self._records))
        self.origin: str | None = fields.get("origin", (str, type(None)))
        self.check: Check | None = fields.parsed("check", Check.from_json)
        outputs = self.widths[-1]
        self.labels: NDArray[Any] | None = fields.parsed("labels", lambda value: checked_labels(value, outputs))
        self.output: OutputFunction | None = fields.parsed(
            "output", lambda value: checked_output(OutputFunction.from_json(value), outputs)
        )

    def layer(self, index: int) -> Layer:
        """Read layer `index` and verify its digest."""
        record = self._records[index]
        file = self._folder / _group_name(record.group)
        with _reading(file, index):
            layer = _read_layer(file, index, record)
        if layer.digest != record.digest:
            raise FileFormatError(f"{file}: the content of layer {index} is not what was written (SHA-256 differs)")
        return layer

    def connections(self) -> int:
        """Return the number of connections of all layers, from the manifest."""
        return sum(record.connections for record in self._records)

    def sizes(self) -> Sequence[tuple[int, int]]:
        """Return (connections, stored weights) of each layer from manifest and file headers; no layer is read."""
        stored: list[int] = []
        for group, records in itertools.groupby(self._records, lambda record: record.group):
            file = self._folder / _group_name(group)
            with _reading(file, len(stored)), safe_open(file, framework="numpy") as tensors:
                first = len(stored)
                shapes = [tensors.get_slice(f"{first + k}.values").get_shape() for k, _ in enumerate(records)]
                stored += map(math.prod, shapes)
        return [(record.connections, weights) for record, weights in zip(self._records, stored, strict=True)]

    def layer_digests(self) -> Sequence[bytes]:
        """Return the digest of each layer from the manifest."""
        return [record.digest for record in self._records]


def _read_json(file: Path) -> object:
    try:
        if file.stat().st_size > _MANIFEST_BYTES:
            raise FileFormatError(f"{file} is too large to be the manifest of a network")
        return load_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileFormatError(f"{file.parent} is not a network: there is no {file}") from error
    except OSError as error:
        raise FileFormatError(f"{file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise FileFormatError(f"{file} is not valid JSON: {error}") from error


def _pack(layer: Layer) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the manifest record of a layer, without its group, and the tensors of the layer."""
    arrays = layer.kernel_arrays()
    degrees = np.diff(arrays.indptr)
    degree = int(degrees[0]) if degrees[0] > 0 and (degrees == degrees[0]).all() else None
    record = {
        "inputs": layer.shape[1],
        "outputs": layer.shape[0],
        "connections": layer.connections,
        "degree": degree,
        "row_groups": arrays.groups,
        "digest": layer.digest.hex(),
    }
    tensors: dict[str, NDArray[Any]] = {"indices": arrays.indices, "values": arrays.values, "bias": arrays.bias}
    if degree is None:
        tensors["indptr"] = arrays.indptr
    if arrays.slopes.size:
        tensors["slopes"] = arrays.slopes
    return record, tensors


@contextmanager
def _reading(file: Path, index: int) -> Iterator[None]:
    """Convert errors from reading layer `index` of `file` to FileFormatError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise FileFormatError(f"{file} is damaged or cannot be read (layer {index}): {error}") from error
    except FileFormatError:
        raise
    except InputError as error:
        raise FileFormatError(f"{file}: layer {index}: {error}") from error


def _read_layer(file: Path, index: int, record: _LayerRecord) -> Layer:
    with safe_open(file, framework="numpy") as tensors:

        def read(name: str, dtype: Any, *sizes: int) -> NDArray[Any]:
            where = f"{file}: layer {index}, tensor {index}.{name}"
            tensor = tensors.get_slice(f"{index}.{name}")
            shape, found = tensor.get_shape(), _DTYPES.get(tensor.get_dtype())
            if found != dtype:
                raise FileFormatError(f"{where} is of type {tensor.get_dtype()}, not {np.dtype(dtype)}")
            if len(shape) != 1 or shape[0] not in sizes:
                raise FileFormatError(f"{where} has shape {shape}, not {' or '.join(f'[{size}]' for size in sizes)}")
            array: NDArray[Any] = tensors.get_tensor(f"{index}.{name}")
            return array

        indices = read("indices", index_dtype(record.inputs), record.connections)
        values = read("values", np.float32, record.connections, min(record.connections, 1))
        bias = read("bias", np.float32, record.outputs, 1)
        if record.degree is None:
            indptr = read("indptr", np.int64, record.outputs + 1)
        else:  # degree >= 1, so indptr is no larger than indices, whose size has been checked
            indptr = np.arange(0, record.connections + 1, record.degree, dtype=np.int64)
        has_slopes = any(group.activation.kind == "prelu" for group in record.groups)
        slopes = read("slopes", np.float32, record.outputs) if has_slopes else None
    return Layer.from_arrays(indptr, indices, values, record.inputs, bias=bias, activation=record.groups, slopes=slopes)


class _Fields:
    """A JSON object of the manifest, with type-checked access to its fields."""

    def __init__(self, file: Path, what: str, value: object) -> None:
        if not isinstance(value, dict):
            raise FileFormatError(f"{file}: {what} is not a JSON object")
        self._file, self._what, self._value = file, what, value

    def get(self, key: str, kind: type[Any] | tuple[type[Any], ...]) -> Any:
        value = self._value.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.wrong(key)
        return value

    def count(self, key: str, least: int = 0) -> int:
        value = self.get(key, int)
        if not least <= value < 2**63:
            raise self.wrong(key)
        return int(value)

    def parsed(self, key: str, parse: Callable[[Any], T]) -> T | None:
        """Return what `parse` makes of an optional field; it rejects a value by an InputError."""
        value = self._value.get(key)
        if value is None:
            return None
        try:
            return parse(value)
        except InputError:
            raise self.wrong(key) from None

    def wrong(self, key: str) -> FileFormatError:
        return FileFormatError(f"{self._file}: {self._what}: the field {key!r} is missing or invalid")


def _read_record(fields: _Fields, version: int, files: int) -> _LayerRecord:
    inputs, outputs = fields.count("inputs", 1), fields.count("outputs", 1)
    connections, group = fields.count("connections"), fields.count("group")
    degree = None if fields.get("degree", (int, type(None))) is None else fields.count("degree", 1)
    if degree is not None and degree * outputs != connections:
        raise fields.wrong("degree")
    if group >= files:
        raise fields.wrong("group")
    try:
        digest = bytes.fromhex(fields.get("digest", str))
    except ValueError:
        raise fields.wrong("digest") from None
    try:
        groups = _read_groups(fields, version, outputs)
    except (InputError, OverflowError, TypeError, ValueError):
        raise fields.wrong("activation" if version == 1 else "row_groups") from None
    return _LayerRecord(inputs, outputs, connections, degree, groups, group, digest)


def _read_groups(fields: _Fields, version: int, outputs: int) -> tuple[RowGroup, ...]:
    if version == 1:
        kind, clip = fields.get("activation", str), float(fields.get("clip", (int, float)))
        return row_groups(Activation(kind, *([clip] if kind == "clipped_relu" or clip else [])), outputs)
    given = [
        RowGroup(rows, Activation(kind, *parameters), reduce)
        for rows, reduce, kind, parameters in fields.get("row_groups", list)
    ]
    return row_groups(given, outputs)


def _check_size(file: Path, size: object) -> None:
    try:
        found = file.stat().st_size
    except OSError as error:
        raise FileFormatError(f"{file} cannot be read: {error.strerror or error}") from error
    if found != size:
        raise FileFormatError(f"{file} has {found} bytes, not the {size} that were written; it is truncated or damaged")


def _group_name(group: int) -> str:
    return f"layers-{group:05d}.safetensors"


def _is_network(folder: Path) -> bool:
    """Return whether a directory holds a network and nothing else, so that it may be replaced."""
    names = {entry.name for entry in folder.iterdir()}
    others = {name for name in names if not (name.startswith("layers-") and name.endswith(".safetensors"))}
    return others == {MANIFEST}
