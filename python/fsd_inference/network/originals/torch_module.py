"""PyTorch modules and exported programs, run by PyTorch on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from fsd_inference.errors import InputError
from fsd_inference.network.importing.torch_import import torch_program
from fsd_inference.network.importing.torch_program import Program, outputs_of
from fsd_inference.network.importing.tracing import Traced
from fsd_inference.network.originals.original import Array, Original
from fsd_inference.network.readers.libraries import library


class TorchModule(Original):
    """A module that is called with samples as they are given.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode.

    Raises
    ------
    InputError
        If it is in training mode.
    """

    def __init__(self, module: Any) -> None:
        torch = library("torch", "a comparison with a module")
        kind = type(module).__name__
        if any(part.training for part in module.modules()):
            raise InputError(f"the {kind} is in training mode; call its eval() first")
        self.name = f"{kind} (torch {torch.__version__})"
        self._torch, self._module = torch, module
        floats = [tensor for tensor in module.parameters() if tensor.is_floating_point()]
        self._like = floats[0] if floats else torch.empty(0)
        self.in_16_bits = self._like.itemsize == 2

    def run(self, x: Array, names: Sequence[str] | None = None) -> list[Array]:  # noqa: ARG002 - see TorchProgram
        """Return the outputs."""
        with self._torch.no_grad():
            made = self._module(self._torch.as_tensor(x).to(self._like.device, self._like.dtype))
        return arrays(made)


class TorchProgram(Original):
    """An exported program.

    Parameters
    ----------
    program : Program
        The program.
    label : str
        Its file or class.
    """

    def __init__(self, program: Program, label: str) -> None:
        self._torch = library("torch", label)
        self._program = program
        self.name = f"{label} (torch {self._torch.__version__})"
        self.batch, self.shape = program.batch, program.shape[1:]
        self.in_16_bits = program.input.meta["val"].dtype.itemsize == 2

    def run(self, x: Array, names: Sequence[str] | None = None) -> list[Array]:
        """Return the outputs, or what the named nodes make."""
        dtype = self._program.input.meta["val"].dtype
        found = outputs_of(self._program, self._torch.as_tensor(x).to(dtype))
        return arrays(found["output"] if names is None else [found[name] for name in names])

    def trace(self) -> tuple[Sequence[int], Sequence[Traced]] | None:
        """See `Original.trace`."""
        found = torch_program(self._program, self.name, self.name, sys.maxsize)
        return [layer.shape[0] for layer in found.layers], found.trace


def arrays(value: Any) -> list[Array]:
    """Return a tensor, or the tensors of a tuple, as arrays."""
    if isinstance(value, tuple | list):
        return [array for one in value for array in arrays(one)]
    tensor = value.detach().cpu()
    return [(tensor.double() if tensor.is_floating_point() else tensor).numpy()]
