"""Choice of what runs a model that a network is compared with, by what is given."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from fsd_inference.errors import FileFormatError, InputError, SettingError
from fsd_inference.network.checks import shown
from fsd_inference.network.importing.model_files import model_kind, read_head
from fsd_inference.network.importing.torch_program import loaded
from fsd_inference.network.originals.onnx_model import OnnxOriginal
from fsd_inference.network.originals.original import Function, Original
from fsd_inference.network.originals.torch_module import TorchModule, TorchProgram


def original(against: Any, outputs: Sequence[str] | None = None) -> Original:
    """Return a model that can be run.

    Parameters
    ----------
    against : path-like, torch.nn.Module or callable
        An ONNX file or a ``.pt2`` file; a module in evaluation mode; or a function from a float32 array of samples to
        an array of outputs.
    outputs : sequence of str, optional
        For an ONNX file: names of the tensors that are its outputs, side by side.

    Raises
    ------
    InputError
        If it is something else, or cannot be read.
    SettingError
        If what runs it is not installed, or `outputs` is given for something else.
    """
    kind = kind_of_file(Path(against)) if isinstance(against, str | os.PathLike) else None
    if outputs is not None and kind != "onnx":
        raise SettingError(f"outputs can be chosen for ONNX models only, not for {shown(against)}; leave them out")
    torch = sys.modules.get("torch")  # a module of a library that is not loaded does not exist
    if torch is not None and isinstance(against, torch.nn.Module):
        return TorchModule(against)
    if callable(against):
        return Function(against)
    if not isinstance(against, str | os.PathLike):
        raise InputError(f"a network is compared with a file, a module or a function, not with {shown(against)}")
    path = Path(against)
    if kind == "torch":
        return TorchProgram(loaded(path), path.name)
    if kind == "onnx":
        return OnnxOriginal(path, outputs)
    raise FileFormatError(f"{path} is neither an ONNX model nor an exported program of PyTorch (.pt2)")


def kind_of_file(path: Path) -> Literal["onnx", "torch"] | None:
    """Return what runs the model in a file; None if the file is a folder, or holds no model that can be run.

    Raises
    ------
    FileFormatError
        If the file cannot be read.
    """
    return None if path.is_dir() else model_kind(path, read_head(path))
