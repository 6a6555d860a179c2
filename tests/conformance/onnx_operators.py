"""The import of ONNX operators, tried on the test cases of the onnx package: `make onnx` writes docs/onnx-operators.md.

Each case has one operator, with inputs and the outputs that are expected. It is tried in up to three forms: the first
input depends on the samples, along its first axis, and the others are constants; all inputs do, as parts of the model's
one input; or, for operators on single elements, the first input is one sample, with a first axis of 1 added.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import fsd_inference as fsd
from fsd_inference.errors import FsdError
from fsd_inference.network import import_network
from fsd_inference.network.importing.onnx_elementwise import ELEMENTWISE
from fsd_inference.network.importing.onnx_graph import OPERATORS

RELEASE = "1.14.1"  # newer ones do not include the cases
CASES = "onnx/backend/test/data"
EXPORTED = "PyTorch modules"
TOLERANCE = 1e-5  # of the largest expected value of a case, and of each value
HALF_TOLERANCE = 1e-3  # for expected values of 16 bits; 16-bit arithmetic is replaced by that of float32
_OLDEST = 7  # opset
_SPLIT_BY_INPUT = 13  # opset
PAGE = Path("docs/onnx-operators.md")

Array = NDArray[Any]


@dataclass(frozen=True)
class Outcome:
    """What came of a case: it agrees, it is refused for a reason, or there is a difference."""

    operator: str
    case: str
    refused: str = ""
    difference: str = ""


def main() -> int:
    """Try all cases and write the page; return 1 if an output differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=Path, help=f"folder of the cases, instead of {CASES} of onnx {RELEASE}")
    parser.add_argument("--page", type=Path, default=PAGE, help="file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cases = arguments.cases or _installed(Path(folder))
        outcomes = list(tried(cases, Path(folder) / "model.onnx"))
    arguments.page.write_text(page(outcomes), encoding="utf-8")
    wrong = [outcome for outcome in outcomes if outcome.difference]
    for outcome in wrong:
        sys.stdout.write(f"{outcome.case}: {outcome.difference}\n")
    agree = sum(not outcome.refused and not outcome.difference for outcome in outcomes)
    sys.stdout.write(f"{len(outcomes)} cases: {agree} agree, {len(wrong)} differ, the others are refused\n")
    return 1 if wrong or not agree else 0


def _installed(folder: Path) -> Path:
    package = [f"onnx=={RELEASE}", "--no-deps", "--only-binary", ":all:", "--quiet", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "install", *package], check=True)
    return folder / CASES


def tried(cases: Path, file: Path) -> Iterator[Outcome]:
    """Yield the outcome of each case with one operator that can be imported, or with an exported module."""
    for case in sorted((cases / "node").iterdir()):
        nodes = onnx.load(case / "model.onnx").graph.node
        if len(nodes) == 1 and nodes[0].op_type in OPERATORS and nodes[0].input and not nodes[0].domain:
            yield _outcome(nodes[0].op_type, case, file)
    for folder in ("pytorch-converted", "pytorch-operator"):
        for case in sorted(path.parent for path in (cases / folder).glob("*/model.onnx")):
            yield _outcome(EXPORTED, case, file)


def _outcome(operator: str, case: Path, file: Path) -> Outcome:
    """Try a case in each form; it agrees if it does in one of them and is refused in the others."""
    reasons, differences = [], []
    for form in (_with_constants, _with_parts, *([_with_one_sample] if operator in ELEMENTWISE else [])):
        try:
            differences.append(_difference(_Case.read(case), form, file))
        except (FsdError, _NotTriedError) as error:
            reasons.append(str(error).replace(str(file), "the model"))
    if not differences:
        return Outcome(operator, case.name, refused=reasons[0])
    return Outcome(operator, case.name, difference="; ".join(filter(None, differences)))


class _NotTriedError(Exception):
    """A case that has no such form; the message is the reason."""


@dataclass
class _Case:
    """A model with its inputs and the outputs that are expected."""

    model: Any
    inputs: list[Array]
    expected: list[Array]

    @classmethod
    def read(cls, case: Path) -> _Case:
        """Read a case; models for opsets that are not read are converted, as their refusal proposes."""
        model = onnx.load(case / "model.onnx")
        if model.opset_import[0].version < _OLDEST:
            model = onnx.version_converter.convert_version(model, _OLDEST)
        constants = {tensor.name for tensor in model.graph.initializer}
        varying = [value for value in model.graph.input if value.name not in constants]
        del model.graph.input[:]
        model.graph.input.extend(varying)
        folder = case / "test_data_set_0"
        inputs = [_stored(folder / f"input_{k}.pb") for k in range(len(model.graph.input))]
        expected = [_stored(folder / f"output_{k}.pb") for k in range(len(model.graph.output))]
        if not all(isinstance(value, np.ndarray) and value.dtype.kind in "fiub" for value in (*inputs, *expected)):
            raise _NotTriedError("takes or makes values that are not tensors")
        return cls(model, inputs, expected)

    def with_input(self, name: str, shape: Sequence[int], kind: int) -> None:
        """Make the model have one input."""
        del self.model.graph.input[:]
        self.model.graph.input.append(helper.make_tensor_value_info(name, kind, shape))


def _with_constants(case: _Case) -> Array:
    """Make all inputs but the first constants; return the samples."""
    first, *others = case.model.graph.input
    for value, array in zip(others, case.inputs[1:], strict=True):
        case.model.graph.initializer.append(numpy_helper.from_array(array, value.name))
    case.with_input(first.name, case.inputs[0].shape, first.type.tensor_type.elem_type)
    return case.inputs[0]


def _with_one_sample(case: _Case) -> Array:
    """Make the first input one sample, and the others constants; return the samples."""
    case.inputs[0] = case.inputs[0][None]
    case.expected = [array[None] for array in case.expected]
    return _with_constants(case)


def _with_parts(case: _Case) -> Array:
    """Make all inputs parts of one, side by side; return the samples."""
    graph, samples = case.model.graph, len(case.inputs[0]) if case.inputs[0].ndim else 0
    if len(case.inputs) < 2 or any(one.ndim < 2 or len(one) != samples or not one.size for one in case.inputs):
        raise _NotTriedError("takes one input")
    flat = [array.reshape(samples, -1) for array in case.inputs]
    nodes = [helper.make_node("Split", ["all"], [f"part{k}" for k in range(len(flat))], axis=1)]
    if case.model.opset_import[0].version < _SPLIT_BY_INPUT:
        nodes[0].attribute.append(helper.make_attribute("split", [part.shape[1] for part in flat]))
    else:
        nodes[0].input.append("widths")
        widths = np.array([part.shape[1] for part in flat])
        graph.initializer.append(numpy_helper.from_array(widths, "widths"))
    for k, (value, array) in enumerate(zip(graph.input, case.inputs, strict=True)):
        graph.initializer.append(numpy_helper.from_array(np.array(array.shape), f"shape{k}"))
        nodes.append(helper.make_node("Reshape", [f"part{k}", f"shape{k}"], [value.name]))
    operator = graph.node[0]
    del graph.node[:]
    graph.node.extend([*nodes, operator])
    case.with_input("all", (samples, sum(part.shape[1] for part in flat)), graph.input[0].type.tensor_type.elem_type)
    return np.concatenate(flat, axis=1)


def _difference(case: _Case, form: Callable[[_Case], Array], file: Path) -> str:
    """Import a case and return how its outputs differ from the expected ones; empty if they do not."""
    with np.errstate(over="ignore"):
        sample = form(case).astype(np.float32)
    if not all(np.isfinite(array).all() for array in case.expected):
        raise _NotTriedError("makes numbers that are not finite")
    if sample.ndim == 0 or sample.size == 0 or not np.isfinite(sample).all():
        raise _NotTriedError("takes no samples of finite numbers")
    outputs = list(case.model.graph.output)
    together = case.model.graph.node[-1].op_type == "TopK"
    differences = []
    for output, expected in [(outputs, case.expected[-1])] if together else zip(outputs, case.expected, strict=True):
        del case.model.graph.output[:]
        case.model.graph.output.extend(output if together else [output])
        file.write_bytes(case.model.SerializeToString())
        network = import_network(file)
        with fsd.Session(network, channel="serial") as session:
            answer = session.infer(sample.reshape(len(sample), -1), outputs="dense")
        assert answer.outputs is not None
        found = answer.outputs if answer.top is None else answer.top
        differences.append(_compared(np.asarray(found, np.float64), expected, len(sample)))
    return "; ".join(filter(None, differences))


def _stored(file: Path) -> Any:
    tensor = onnx.TensorProto.FromString(file.read_bytes())
    try:
        return numpy_helper.to_array(tensor)
    except (TypeError, ValueError, KeyError):
        return None  # a sequence, or an optional value


def _compared(found: Array, expected: Array, samples: int) -> str:
    wanted = expected.astype(np.float64).reshape(samples, -1)
    if found.shape != wanted.shape:
        return f"{found.shape} outputs, not {wanted.shape}"
    tolerance = HALF_TOLERANCE if expected.dtype.itemsize == 2 else TOLERANCE
    bound = tolerance * (np.abs(wanted) + np.abs(wanted).max(initial=0)) + np.finfo(np.float32).tiny
    excess = np.abs(found - wanted) - bound
    if not (excess <= 0).all():
        return f"an output differs by {np.abs(found - wanted).max():g}"
    return ""


def page(outcomes: Iterable[Outcome]) -> str:
    """Return the page with the number of cases of each operator that agree, and why others are refused."""
    by_operator: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_operator[outcome.operator].append(outcome)
    lines = [
        "# ONNX operators",
        "",
        f"Made by `make onnx` from the test cases of operators and of exported PyTorch modules in onnx {RELEASE}.",
        "The first input of a case becomes that of a model, with samples along its first axis, and the others",
        "constants; or all inputs become parts of one; or the first a single sample. The case agrees if each output",
        f"is as expected to {TOLERANCE:g} of it and of the largest of the case ({HALF_TOLERANCE:g} for values of 16",
        "bits). The others are refused for the reasons given. [Bring a network](guides/networks.md#onnx) has what",
        "else is supported.",
        "",
        "| operator | cases | agree | refused | because it |",
        "|---|---:|---:|---:|---|",
    ]
    for operator in (*sorted(OPERATORS), EXPORTED):
        found = by_operator.get(operator, [])
        refused = [outcome.refused for outcome in found if outcome.refused]
        agree = sum(not outcome.refused and not outcome.difference for outcome in found)
        reasons = "; ".join(dict.fromkeys(_short(reason, operator) for reason in refused))
        lines.append(f"| {operator} | {len(found)} | {agree} | {len(refused)} | {reasons} |")
    return "\n".join(lines) + "\n"


def _short(reason: str, operator: str) -> str:
    """Return a reason without the place, names and what to do."""
    text = re.sub(r"^the model: |\d+ problems: |its input '\w*' |the constant '\w*' |(, )?node \S+ (?=\()", "", reason)
    text = re.sub(rf"^\({operator}\) ", "", text)
    text = re.sub(r"is of type \w+, (not|but).*", "takes no floats", text.split("; ")[0])
    return re.sub(r" \(\d[^)]*\)", "", text).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
