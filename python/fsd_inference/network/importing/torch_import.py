"""Import of PyTorch modules and exported programs: their layers, and the function of all outputs at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fsd_inference.network.importing.imported import Imported
from fsd_inference.network.importing.lowering import lower
from fsd_inference.network.importing.torch_graph import torch_graph
from fsd_inference.network.importing.torch_program import Program, exported, loaded
from fsd_inference.network.importing.tracing import traced
from fsd_inference.network.readers.libraries import library


def torch_module(module: Any, example: Any, most_connections: int) -> Imported:
    """Import a module; see `Network.from_torch`."""
    kind = type(module).__name__
    return torch_program(exported(module, example), f"this {kind}", kind, most_connections)


def torch_file(path: Path, most_connections: int) -> Imported:
    """Import an exported program from a ``.pt2`` file.

    Raises
    ------
    SettingError
        If PyTorch is not installed.
    FileFormatError
        If the file cannot be loaded, or has operators that cannot be imported; lists all of them.
    """
    return torch_program(loaded(path), str(path), path.name, most_connections)


def torch_program(program: Program, where: str, label: str, most_connections: int) -> Imported:
    """Import an exported program.

    Parameters
    ----------
    program : Program
        The program.
    where, label : str
        Its name in messages, and in the origin of the network.
    most_connections : int
        How many connections it may become.

    Raises
    ------
    FileFormatError
        If it has operators that cannot be imported; lists all of them.
    """
    found = torch_graph(program, where, most_connections=most_connections)
    layers, facts = lower(found.graph, found.outputs, where)
    origin = f"PyTorch {label}, torch {library('torch', label).__version__}"
    return Imported(layers, found.output, origin, facts, traced(facts.neurons, found.tensors))
