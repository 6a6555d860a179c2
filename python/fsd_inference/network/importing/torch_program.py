"""Exported programs of PyTorch: a graph of ATen operators on tensors that are all known but one, the samples."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsd_inference.errors import FileFormatError, InputError
from fsd_inference.network.checks import shown
from fsd_inference.network.importing.torch_archive import check_archive
from fsd_inference.network.readers.libraries import library

_KEPT = (
    *("linear", "matmul", "silu", "hardswish", "hardsigmoid", "prelu", "softplus", "mish", "celu", "log_sigmoid"),
    *("max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool1d", "upsample_nearest2d", "layer_norm"),
    *("group_norm", "instance_norm", "scaled_dot_product_attention"),
)
"""Operators that decompositions would turn into several that mean less."""


@dataclass(frozen=True, slots=True)
class Program:
    """An exported program without in-place operators, and the tensors that it knows.

    Attributes
    ----------
    program : torch.export.ExportedProgram
        The program.
    constants : dict of str to torch.Tensor
        Parameters, buffers and other tensors, by the names of their placeholders.
    input : torch.fx.Node
        The placeholder of the samples.
    """

    program: Any
    constants: dict[str, Any]
    input: Any

    @property
    def shape(self) -> tuple[Any, ...]:
        """Shape of the samples: their number, which may be symbolic, and the shape of one."""
        return tuple(self.input.meta["val"].shape)

    @property
    def batch(self) -> int | None:
        """Number of samples that the program takes; None if any."""
        return self.shape[0] if isinstance(self.shape[0], int) else None


def exported(module: Any, example: Any) -> Program:
    """Export a module.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode, with parameters on the CPU or elsewhere.
    example : torch.Tensor or tuple of one
        Samples of the shape that the module takes.

    Raises
    ------
    SettingError
        If PyTorch is not installed.
    InputError
        If either is something else, or PyTorch cannot export the module.
    """
    torch = library("torch", "the import of a module")
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"from_torch takes a torch.nn.Module, not {shown(type(module))}")
    kind = type(module).__name__
    (sample,) = example if isinstance(example, tuple | list) and len(example) == 1 else (example,)
    if not isinstance(sample, torch.Tensor) or sample.ndim < 2 or not sample.shape[0]:
        raise InputError("the example must be one tensor of samples x features, or of samples x channels x ...")
    training = next((name for name, part in module.named_modules() if part.training), None)
    if training is not None:
        what = f"{training} of this {kind}" if training else f"this {kind}"
        raise InputError(f"{what} is in training mode; call eval() of the {kind} first")
    dynamic = ({0: torch.export.Dim.AUTO},)
    try:
        with _quiet(), torch.no_grad():
            program = torch.export.export(_without_sparse(module, torch), (sample,), dynamic_shapes=dynamic)
            return _functional(program, torch, kind)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"PyTorch cannot export this {kind}: {_first_line(error)}") from error


def loaded(path: Path) -> Program:
    """Load an exported program from a ``.pt2`` file.

    Raises
    ------
    SettingError
        If PyTorch is not installed.
    FileFormatError
        If the file cannot be read, holds more than tensors and a graph, or is of another version of PyTorch.
    """
    torch = library("torch", str(path))
    check_archive(path, torch)
    try:
        with _quiet(), torch.no_grad(), path.open("rb") as stream:
            return _functional(torch.export.load(stream), torch, str(path))
    except InputError:
        raise
    except Exception as error:
        raise FileFormatError(
            f"{path} cannot be loaded by PyTorch {torch.__version__}: {_first_line(error)}; save it again with this "
            "version"
        ) from error


def _functional(program: Any, torch: Any, where: str) -> Program:
    """Return a program in which no operator changes its arguments, reduced to few kinds of operators."""
    table = torch.export.default_decompositions()
    for name in _KEPT:
        packet = getattr(torch.ops.aten, name)
        for overload in packet.overloads():
            table.pop(getattr(packet, overload), None)
    program = program.run_decompositions(table)
    signature = program.graph_signature
    if len(signature.user_inputs) != 1:
        raise FileFormatError(
            f"{where} has {len(signature.user_inputs)} inputs, not one; import a module of one tensor"
        )
    tensors = program.state_dict | program.constants
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    names |= signature.inputs_to_lifted_tensor_constants
    constants = {name: tensors[target].detach() for name, target in names.items() if target in tensors}
    (samples,) = (node for node in program.graph.nodes if node.name == signature.user_inputs[0])
    return Program(program, constants, samples)


def _without_sparse(module: Any, torch: Any) -> Any:
    """Return the module with dense parameters: PyTorch exports no sparse ones."""
    dense = {
        id(tensor): torch.nn.Parameter(tensor.detach().to_dense(), requires_grad=False)
        for tensor in (*module.parameters(), *module.buffers())
        if tensor.layout != torch.strided
    }
    return copy.deepcopy(module, dense) if dense else module


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what PyTorch warns of, logs and prints from the user: what matters becomes an error."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _first_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0]
    return text.rstrip(".") or type(error).__name__


def outputs_of(program: Program, samples: Any) -> dict[str, Any]:
    """Run a program on a tensor of samples.

    Returns
    -------
    dict of str to torch.Tensor or tuple of them
        What each node makes, by its name; the output is called "output".
    """
    torch = library("torch", "the program")
    graph_module = program.program.graph_module
    found: dict[str, Any] = {}

    class Recorder(torch.fx.Interpreter):  # type: ignore[misc,name-defined]
        def run_node(self, n: Any) -> Any:
            found[n.name] = super().run_node(n)
            return found[n.name]

    placeholders = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    given = [samples if node is program.input else program.constants.get(node.name) for node in placeholders]
    with torch.no_grad():
        found["output"] = Recorder(graph_module).run(*given)
    return found
