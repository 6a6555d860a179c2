"""Check of PyTorch's ``.pt2`` files before PyTorch's own loader reads them.

That loader unpickles, evaluates expressions and loads compiled code where a file asks for it. Exported programs of
plain tensors need none of that, so any file with more than these members is refused, all under one folder::

    models/model.json                        the graph; its symbolic sizes are arithmetic
    data/weights/weight_0, ...               raw tensors; model_weights_config.json describes them
    data/constants/tensor_0, ...             raw tensors; model_constants_config.json describes them
    data/sample_inputs/model.pt              tensors that torch.load reads with weights_only
    archive_format, archive_version, byteorder, .data/...
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fsd_inference.errors import FileFormatError
from fsd_inference.network.checks import shown

_MEMBERS = re.compile(
    r"models/model\.json|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)|data/sample_inputs/model\.pt"
    r"|archive_format|archive_version|byteorder|version|\.data/\w+"
)
_GRAPH = "models/model.json"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_SAMPLE = "data/sample_inputs/model.pt"
_JSON_BYTES = 256 << 20  # of the graph, and of the descriptions of its tensors
_ARITHMETIC = re.compile(
    r"(?:Symbol\('[a-z]+\d+'(?:, [a-z_]+=(?:True|False))*\)|Integer|Add|Mul|Pow|Max|Min|Mod|PythonMod|FloorDiv|CeilDiv"
    r"|[a-z]\d+|\d+|[ ()+\-*/,])*"
)
_HINT = "save the module again with torch.export.save, or import it in Python with Network.from_torch"


def check_archive(path: Path, torch: Any) -> None:
    """Raise unless a file is an exported program whose loading runs no code of the file's.

    Parameters
    ----------
    path : Path
        The file.
    torch : module
        PyTorch.

    Raises
    ------
    FileFormatError
        If the file cannot be read, is no exported program, or asks for more than tensors and arithmetic.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(path, archive, torch)
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, ValueError, RecursionError, NotImplementedError) as error:
        raise FileFormatError(f"{path} is truncated, damaged or not an exported program of PyTorch") from error


def _check_members(path: Path, archive: zipfile.ZipFile, torch: Any) -> None:
    names = [name for name in archive.namelist() if not name.endswith("/")]
    folder, _, _ = names[0].partition("/") if names else ("", "", "")
    members = {name.removeprefix(f"{folder}/") for name in names}
    if len(members) != len(names) or not {_GRAPH, _SAMPLE, *_CONFIGS} <= members:
        raise FileFormatError(f"{path} is not one exported program of PyTorch 2.8 or later; {_HINT}")
    others = sorted(name for name in members if not _MEMBERS.fullmatch(name))
    if others:
        raise FileFormatError(
            f"{path} holds {shown(others[0])}, which PyTorch would unpickle or run as code; a program of plain tensors "
            f"has none: {_HINT}"
        )

    def read(name: str) -> bytes:
        if archive.getinfo(f"{folder}/{name}").file_size > _JSON_BYTES:
            raise FileFormatError(f"{path}: {name} is larger than that of any exported program")
        return archive.read(f"{folder}/{name}")

    for name in _CONFIGS:
        if any(key == "use_pickle" and value is not False for key, value in _items(json.loads(read(name)))):
            raise FileFormatError(
                f"{path} holds pickled tensors, and loading a pickle can run any code; save dense tensors of PyTorch's "
                f"own types: {_HINT}"
            )
    for key, value in _items(json.loads(read(_GRAPH))):
        if key == "expr_str" and not (isinstance(value, str) and _ARITHMETIC.fullmatch(value)):
            raise FileFormatError(f"{path} has the size {shown(value)}, which is not plain arithmetic; {_HINT}")
    try:
        torch.load(io.BytesIO(read(_SAMPLE)), weights_only=True)
    except Exception as error:
        raise FileFormatError(f"{path} has sample inputs that are not plain tensors; {_HINT}") from error


def _items(value: object) -> Iterator[tuple[str, object]]:
    """Yield all keys and values of a JSON document, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _items(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _items(inner)
