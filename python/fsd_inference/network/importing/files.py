"""Import of networks from files, whose kind is detected from their content."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fsd_inference.errors import FileFormatError, InputError, SettingError
from fsd_inference.network.checks import shown
from fsd_inference.network.file_format import MANIFEST
from fsd_inference.network.importing.graph_challenge_folder import graph_challenge_folder, is_graph_challenge_file
from fsd_inference.network.importing.imported import Imported
from fsd_inference.network.importing.layers import Activations
from fsd_inference.network.importing.lowering import MOST_CONNECTIONS
from fsd_inference.network.importing.matrix_files import is_layer_file, matrix_layers
from fsd_inference.network.importing.model_files import model_kind, read_head
from fsd_inference.network.importing.problems import listed, refuse
from fsd_inference.network.importing.state_dict import state_dict_layers
from fsd_inference.network.importing.tensor_files import INDEX_SUFFIX
from fsd_inference.network.model import Network
from fsd_inference.network.numpy_files import NPY_MAGIC, ZIP_MAGIC
from fsd_inference.network.source import LayersInMemory

_PICKLES = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt")
_PICKLE_MAGICS = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
_MATRIX_MAGICS = (NPY_MAGIC, ZIP_MAGIC, b"%%Matrix")
_PICKLE_IN_ZIP = b"data.pkl"  # the first member of what torch.save writes
_HEADER_START = 8  # of safetensors' header, after its length

StrPath = str | os.PathLike[str]


def import_network(
    source: StrPath | Iterable[StrPath],
    *,
    layers: Sequence[str] | None = None,
    activations: Activations = None,
    transpose: bool = False,
    bias: float | None = None,
    outputs: Sequence[str] | None = None,
    most_connections: int | None = None,
    notice: Callable[[str], object] | None = None,
) -> Network:
    """Open a network stored in another format; each layer is read on access.

    Parameters
    ----------
    source : path-like or iterable of them
        One of

        - a folder of matrices, or its files: ``layer-1.npz`` (of ``scipy.sparse.save_npz``), ``.npy``, ``.mtx`` or
          ``.mtx.gz``, ``layer-2.npz``..., numbered from 0 or 1, outputs x inputs; and ``layer-1.bias.npy`` for
          layers with a bias;
        - an ONNX model that is a feed-forward graph, held in memory (needs the extra ``onnx``);
        - a PyTorch program that ``torch.export.save`` has written (``.pt2``), held in memory (needs the extra
          ``torch``);
        - a safetensors file of a state dict, or the index (``*.safetensors.index.json``) of a sharded one;
        - a folder of the Graph Challenge: ``n1024-l1.tsv``, ``n1024-l2.tsv``..., or ``.tsv.gz``.
    layers : sequence of str, optional
        For safetensors: names of the layers in order. Layer ``fc1`` consists of the tensors ``fc1.weight``,
        outputs x inputs, and, if present, ``fc1.bias``.
    activations : Activation, "identity", "relu" or sequence of them, optional
        For matrices and safetensors: one for all layers, or one per layer; defaults to relu, with identity for the
        last layer.
    transpose : bool, optional
        For matrices: whether the files are inputs x outputs.
    bias : float, optional
        For the Graph Challenge: bias of all neurons; defaults to its own for networks of an official size.
    outputs : sequence of str, optional
        For ONNX: names of the tensors to compute, side by side, instead of the model's outputs. Nodes on which none of
        them depends are not read.
    most_connections : int, optional
        For ONNX and ``.pt2``: how many connections the network may have, 100 million by default; convolutions have one
        for each weight and position.
    notice : callable, optional
        For ONNX and ``.pt2``: called with sentences on where most connections are, and whether many of them only carry
        values past layers.

    Returns
    -------
    Network
        Its `origin` names what was left out of a state dict. A softmax, argmax or top-k at the end of an ONNX model is
        its `output`.

    Raises
    ------
    FileFormatError
        If a file is missing, damaged or of an unknown kind; lists all problems of names and shapes. On access to a
        layer, lists all problems of values in it and in later layers.
    SettingError
        If a parameter does not apply to this kind of source, or `layers` is missing for safetensors.

    Examples
    --------
    >>> import tempfile, numpy as np, fsd_inference as fsd
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/layer-1.npy", [[1.0, 0.0, 2.0], [0.0, -1.0, 0.0]])
    ...     np.save(f"{folder}/layer-2.npy", [[1.0, 1.0]])
    ...     network = fsd.import_network(folder)
    >>> network.widths
    (3, 2, 1)
    """
    for what, names in (("layers", layers), ("outputs", outputs)):
        if isinstance(names, str):
            raise InputError(f"{what} must be a list of names, such as {names.split(',')}, not {shown(names)}")
    given: dict[str, Any] = {"layers": layers, "activations": activations, "transpose": transpose or None, "bias": bias}
    given |= {"outputs": outputs, "most_connections": most_connections}
    if not isinstance(source, str | os.PathLike):
        return _from_matrices([Path(path) for path in source], given)
    path = Path(source)
    if path.is_dir():
        return _from_folder(path, given)
    if is_layer_file(path):
        return _from_matrices([path], given)
    head = read_head(path)
    kind = model_kind(path, head)
    if kind == "torch":
        from fsd_inference.network.importing.torch_import import torch_file  # noqa: PLC0415 - few networks need it

        _check_given(path, "an exported program of PyTorch", given, "most_connections")
        return _graph(torch_file(path, most_connections or MOST_CONNECTIONS), path, notice)
    if kind == "onnx":
        from fsd_inference.network.importing.onnx_graph import onnx_network  # noqa: PLC0415 - as above

        _check_given(path, "an ONNX model", given, "outputs", "most_connections")
        found = onnx_network(path, outputs=outputs, most_connections=most_connections or MOST_CONNECTIONS)
        return _graph(found, path, notice)
    _check_safetensors(path, head)
    _check_given(path, "safetensors", given, "layers", "activations")
    source_layers, others = state_dict_layers(path, layers, activations)
    origin = f"safetensors {path.name}, layers {', '.join(layers or ())}"
    if others:
        origin += f"; left out: {listed(others)}"
    name = path.name.removesuffix(INDEX_SUFFIX).removesuffix(".safetensors")
    return Network.from_source(source_layers, name=name, origin=origin)


def _graph(imported: Imported, path: Path, notice: Callable[[str], object] | None) -> Network:
    if notice is not None:
        for sentence in imported.facts.sentences():
            notice(sentence)
    held = LayersInMemory(imported.layers)
    return Network.from_source(held, name=path.stem, origin=imported.origin, output=imported.output)


def _from_folder(folder: Path, given: Mapping[str, Any]) -> Network:
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_file()]
    except OSError as error:
        raise FileFormatError(f"{folder} cannot be read: {error.strerror or error}") from error
    if any(map(is_graph_challenge_file, entries)):
        _check_given(folder, "a Graph Challenge folder", given, "bias")
        return graph_challenge_folder(folder, given["bias"])
    names = sorted(entry.name for entry in entries)
    if MANIFEST in names:
        raise FileFormatError(f"{folder} is already a network of this program; no import is needed")
    tensors = [name for name in names if name.endswith((INDEX_SUFFIX, ".safetensors"))]
    if tensors:
        first = next((name for name in tensors if name.endswith(INDEX_SUFFIX)), tensors[0])
        raise FileFormatError(f"{folder} is a folder; import a safetensors file in it, such as {folder / first}")
    return _matrices(folder, entries, given)


def _from_matrices(files: list[Path], given: Mapping[str, Any]) -> Network:
    if not files:
        raise InputError("a network needs at least one file of weights, but none is given")
    refuse(
        [
            f"{file} must be named like layer-1.npz (.npy, .mtx, .mtx.gz) or layer-1.bias.npy, so that its place in "
            "the network is known; rename it"
            for file in files
            if not is_layer_file(file)
        ],
        FileFormatError,
    )
    return _matrices(files[0].parent, files, given)


def _matrices(folder: Path, files: Iterable[Path], given: Mapping[str, Any]) -> Network:
    layers = matrix_layers(folder, files, given["activations"], transpose=bool(given["transpose"]))
    _check_given(folder, "a folder of matrices", given, "activations", "transpose")
    name = folder.absolute().name
    return Network.from_source(layers, name=name, origin=f"matrices in {name}")


def _check_given(path: Path, kind: str, given: Mapping[str, Any], *allowed: str) -> None:
    """Raise SettingError for parameters that do not apply to this kind of source."""
    for name, value in given.items():
        if value is not None and name not in allowed:
            raise SettingError(f"{name} cannot be set for {path}, which is {kind}; leave it out")


def _check_safetensors(path: Path, head: bytes) -> None:
    """Raise FileFormatError for a file that is neither safetensors nor an index of them; name its kind."""
    if path.suffix == ".json" or head[_HEADER_START : _HEADER_START + 1] == b"{":
        return
    if path.suffix.lower() in _PICKLES or head.startswith(_PICKLE_MAGICS) or _PICKLE_IN_ZIP in head:
        raise FileFormatError(
            f"{path} is a pickle, and loading a pickle can run any code; if you trust it, load it in Python and save "
            "its tensors with safetensors, or import its estimator with Network.from_sklearn"
        )
    if is_graph_challenge_file(path):
        raise FileFormatError(f"{path} is one layer of a Graph Challenge network; import its folder")
    if head.startswith(_MATRIX_MAGICS):
        raise FileFormatError(f"{path} holds a matrix; to import it, name it like layer-1.npz, .npy or .mtx")
    raise FileFormatError(
        f"{path} cannot be imported; import an ONNX model, a .pt2 file, a safetensors file or its index, matrix files "
        "named like layer-1.npz, or a folder of matrices or of the Graph Challenge's TSV files"
    )
