"""Files of models, ONNX's and PyTorch's, known by their first bytes or their names."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fsd_inference.errors import FileFormatError

_HEAD_BYTES = 512
_MAGIC = b"\x08"  # of ONNX: the field of the IR version, the first one
_SECOND_FIELDS = b"\x12\x1a\x22\x28\x32\x3a\x42"


def read_head(path: Path) -> bytes:
    """Read the first bytes of a file, by which kinds are told apart.

    Raises
    ------
    FileFormatError
        If it cannot be read, or is neither a file nor a folder.
    """
    try:
        if path.exists() and not path.is_file():  # opening a named pipe would block
            raise FileFormatError(f"{path} is neither a file nor a folder")
        with path.open("rb") as stream:
            return stream.read(_HEAD_BYTES)
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror or error}") from error


def model_kind(path: Path, head: bytes) -> Literal["onnx", "torch"] | None:
    """Return what made the model in a file with these first bytes; None if it is no model of either."""
    if is_pt2(path, head):
        return "torch"
    return "onnx" if is_onnx(path, head) else None


def is_onnx(path: Path, head: bytes) -> bool:
    """Return whether a file with these first bytes is an ONNX model, by its content or its name."""
    starts = len(head) > 8 and head.startswith(_MAGIC) and 0 < head[1] < 0x80 and head[2] in _SECOND_FIELDS
    is_safetensors = head[8:9] == b"{"  # its length can look like these fields
    return (starts and not is_safetensors) or path.suffix.lower() == ".onnx"


def is_pt2(path: Path, head: bytes) -> bool:
    """Return whether a file with these first bytes is named as, or starts like, an exported program of PyTorch."""
    return path.suffix.lower() == ".pt2" or (head.startswith(b"PK\x03\x04") and b"/data/weights/weight_0" in head)
