"""Networks from files, whose kind is recognised by what they hold."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fsd_inference.errors import FileFormatError, InputError, SettingError
from fsd_inference.network.file_format import MANIFEST
from fsd_inference.network.importers import graph_challenge_folder, is_graph_challenge_file
from fsd_inference.network.importing.layers import Activations
from fsd_inference.network.importing.matrix_files import is_layer_file, matrix_layers
from fsd_inference.network.importing.problems import listed, refuse
from fsd_inference.network.importing.state_dict import state_dict_layers
from fsd_inference.network.importing.tensor_files import INDEX_SUFFIX
from fsd_inference.network.model import Network
from fsd_inference.network.numpy_files import NPY_MAGIC, ZIP_MAGIC

_PICKLES = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt")
_PICKLE_MAGICS = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
_MATRIX_MAGICS = (NPY_MAGIC, ZIP_MAGIC, b"%%Matrix")
_HEADER_START = 8  # of safetensors' header, after its length

StrPath = str | os.PathLike[str]


def import_network(
    source: StrPath | Iterable[StrPath],
    *,
    layers: Sequence[str] | None = None,
    activations: Activations = None,
    transpose: bool = False,
    bias: float | None = None,
) -> Network:
    """Return the network in other people's files; each layer is read when it is asked for.

    Parameters
    ----------
    source : path-like or iterable of them
        One of

        - a folder of matrices, or its files: ``layer-1.npz`` (of ``scipy.sparse.save_npz``), ``.npy``, ``.mtx`` or
          ``.mtx.gz``, ``layer-2.npz``..., numbered on from 0 or 1, outputs x inputs; and ``layer-1.bias.npy`` for
          layers with a bias;
        - a safetensors file of a state dict, or the index (``*.safetensors.index.json``) of a sharded one;
        - a folder of the Graph Challenge: ``n1024-l1.tsv``, ``n1024-l2.tsv``..., or ``.tsv.gz``.
    layers : sequence of str, optional
        Of safetensors: the layers in order; ``fc1`` for the tensors ``fc1.weight``, outputs x inputs, and ``fc1.bias``.
    activations : Activation, "identity", "relu" or sequence of them, optional
        Of matrices and safetensors: one for all layers, or one for each; relu, and identity for the last layer, if not
        given.
    transpose : bool, optional
        Of matrices: they are inputs x outputs.
    bias : float, optional
        Of the Graph Challenge: that of all neurons; its own if not given and the network has an official size.

    Returns
    -------
    Network
        Its `origin` says which tensors of a state dict are not part of it.

    Raises
    ------
    FileFormatError
        If a file is missing, damaged or of another kind; lists all problems of names and shapes and, when a layer is
        read, of values.
    SettingError
        If something is given that is not for this kind of source, or the `layers` of safetensors are not.

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
    given = {"layers": layers, "activations": activations, "transpose": transpose or None, "bias": bias}
    if not isinstance(source, str | os.PathLike):
        return _from_matrices([Path(path) for path in source], given)
    path = Path(source)
    if path.is_dir():
        return _from_folder(path, given)
    if is_layer_file(path):
        return _from_matrices([path], given)
    _check_safetensors(path)
    _check_given(path, "safetensors", given, "layers", "activations")
    source_layers, others = state_dict_layers(path, layers, activations)
    origin = f"safetensors {path.name}, layers {', '.join(layers or ())}"
    if others:
        origin += f"; left out: {listed(others)}"
    name = path.name.removesuffix(INDEX_SUFFIX).removesuffix(".safetensors")
    return Network.from_source(source_layers, name=name, origin=origin)


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
        raise FileFormatError(f"{folder} is a network of this program already; use it as it is")
    tensors = [name for name in names if name.endswith((INDEX_SUFFIX, ".safetensors"))]
    if tensors:
        first = next((name for name in tensors if name.endswith(INDEX_SUFFIX)), tensors[0])
        raise FileFormatError(f"{folder} is a folder with safetensors; give the file itself, such as {folder / first}")
    return _matrices(folder, entries, given)


def _from_matrices(files: list[Path], given: Mapping[str, Any]) -> Network:
    if not files:
        raise InputError("no file is given; a network needs at least one file of weights")
    refuse(
        [
            f"{file} is not named like layer-1.npz, .npy, .mtx or .mtx.gz, or layer-1.bias.npy, so its place in the "
            "network is unknown; rename it"
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
    """Refuse settings that do not apply to this kind of source."""
    for name, value in given.items():
        if value is not None and name not in allowed:
            raise SettingError(f"{name} cannot be set for {path}, which is {kind}; leave it out")


def _check_safetensors(path: Path) -> None:
    """Refuse a file that is neither safetensors nor an index of them, and say what it is instead."""
    try:
        if path.exists() and not path.is_file():  # a named pipe would be waited for
            raise FileFormatError(f"{path} is neither a file nor a folder")
        with path.open("rb") as stream:
            head = stream.read(_HEADER_START + 1)
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror or error}") from error
    if path.suffix == ".json" or head[_HEADER_START:] == b"{":
        return
    if path.suffix.lower() in _PICKLES or head.startswith(_PICKLE_MAGICS):
        raise FileFormatError(
            f"{path} is a pickle, which can run any code when it is loaded, so it is not read; load it where you trust "
            "it, and save its tensors with safetensors or hand its estimator to Network.from_sklearn"
        )
    if is_graph_challenge_file(path):
        raise FileFormatError(f"{path} is one layer of a Graph Challenge network; give its folder")
    if head.startswith(_MATRIX_MAGICS):
        raise FileFormatError(f"{path} holds a matrix; name it like layer-1{''.join(path.suffixes)} to import it")
    raise FileFormatError(
        f"{path} is not a source of networks; those are safetensors files, their index files, matrix files named like "
        "layer-1.npz, and folders of matrices or of the Graph Challenge's TSV files"
    )
