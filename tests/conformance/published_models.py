"""Published ONNX models, imported and run on several workers: `make models` writes docs/published-models.md.

The models are those that packages on PyPI contain. Each is imported and compared with ONNX Runtime on random samples,
and runs on the workers of an emulated AWS over both of its channels, whose outputs are compared with those of one
process bit by bit. A model that cannot be imported is listed with the reason.
"""

from __future__ import annotations

import argparse
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.errors import FsdError
from fsd_inference.network import import_network
from fsd_inference.network.fidelity import Check

PACKAGES = (
    "openwakeword==0.4.0",
    "vietcombank-captcha==0.1.0",
    "occular-deskew==0.5.0",
    "rapidocr-onnxruntime==1.4.4",
    "captcha-whisperer==0.1.0",
    "brainmaze-eeg-models==0.1.0",
    "slovorez==0.1.0",
    "magika==1.0.3",
)
PINS = Path("tests/e2e/frameworks.txt")
TENSORS = {"vietcombank_captcha.onnx": tuple(f"model/digit_{k}/BiasAdd:0" for k in range(5))}
"""Tensors to import of models that have several outputs: here the scores of five digits, before their softmax."""
RUNS: tuple[tuple[Literal["queue", "object"], int], ...] = (("queue", 2), ("queue", 4), ("object", 3))
SAMPLES = 16
MOST_CONNECTIONS = 200_000_000
_COMPARED = "largest difference | of at most | same largest output"
PAGE = Path("docs/published-models.md")


@dataclass(frozen=True)
class Outcome:
    """What came of a model.

    Attributes
    ----------
    package, file : str
        Where it is.
    parameters : int
        Number of values of its initializers and constants.
    refused : str
        Why it cannot be imported; empty if it can.
    network : Network or None
        What it becomes.
    check : Check or None
        Its comparison with the model.
    unequal : tuple of str
        The runs whose outputs are not those of one process.
    """

    package: str
    file: str
    parameters: int
    refused: str = ""
    network: fsd.Network | None = None
    check: Check | None = None
    unequal: tuple[str, ...] = ()

    @property
    def right(self) -> bool:
        """Whether it agrees with the model, and all runs with each other."""
        return self.check is not None and self.check.agrees and not self.unequal


def main() -> int:
    """Try all models and write the page; return 1 if one that is imported differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, default=PAGE, help="file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runtime = Path(folder, "runtime")
        _install(runtime, "onnxruntime", "--constraint", str(PINS))
        sys.path.append(str(runtime))
        outcomes = list(tried(Path(folder)))
    arguments.page.write_text(page(outcomes), encoding="utf-8")
    imported = [outcome for outcome in outcomes if not outcome.refused]
    right = sum(outcome.right for outcome in imported)
    sys.stdout.write(f"{len(outcomes)} models: {right} are right, {len(imported) - right} wrong, the others refused\n")
    return 0 if right and right == len(imported) else 1


def _install(folder: Path, package: str, *options: str) -> None:
    wheels = ["--only-binary", ":all:", "--quiet", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "install", package, *wheels, *options], check=True)


def tried(folder: Path) -> Iterator[Outcome]:
    """Install the packages below a folder and yield the outcome of each model, in the order of packages and names."""
    for package in PACKAGES:
        own = folder / package
        _install(own, package, "--no-deps")
        for file in sorted(own.rglob("*.onnx")):
            outcome = _outcome(package, file)
            sys.stdout.write(f"{package} {file.name}: {outcome.refused or outcome.check}\n")
            yield outcome


def _outcome(package: str, file: Path) -> Outcome:
    graph, names = onnx.load(file, load_external_data=False).graph, TENSORS.get(file.name)
    values = [node.attribute[0].t for node in graph.node if node.op_type == "Constant"]
    parameters = sum(math.prod(tensor.dims) for tensor in (*graph.initializer, *values))
    try:
        network = import_network(file, outputs=names, most_connections=MOST_CONNECTIONS)
    except FsdError as error:
        return Outcome(package, file.name, parameters, refused=str(error).removeprefix(f"{file}: "))
    x = np.random.default_rng(0).standard_normal((SAMPLES, network.widths[0]), np.float32)
    check = fsd.check(network, file, x, outputs=names)
    with fsd.Session(network, channel="serial") as session:
        expected = _bits(session.infer(x, outputs="csr"))
    unequal = []
    for channel, workers in RUNS:
        with fsd.Session(network, channel=channel, workers=workers) as session:
            if _bits(session.infer(x, outputs="csr")) != expected:
                unequal.append(f"{channel}, {workers} workers")
    return Outcome(package, file.name, parameters, network=network, check=check, unequal=tuple(unequal))


def _bits(answer: fsd.Inference) -> tuple[bytes, ...]:
    """Return all bytes of the outputs, which are a CSR matrix."""
    assert isinstance(answer.outputs, sparse.csr_array)
    parts: Iterable[NDArray[np.generic]] = (answer.outputs.indptr, answer.outputs.indices, answer.outputs.data)
    return tuple(part.tobytes() for part in parts)


def page(outcomes: Iterable[Outcome]) -> str:
    """Return the page: a table of the models that are imported, and one of those that are refused."""
    runs = ", ".join(f"`{channel}` with {workers} workers" for channel, workers in RUNS)
    lines = [
        "# Published models",
        "",
        "Made by `make models` from the ONNX models that packages on PyPI contain. Each is imported with at most",
        f"{MOST_CONNECTIONS:,} connections, compared with ONNX Runtime on {SAMPLES} random samples, and run over",
        f"{runs} on an emulated AWS; all bits of the outputs",
        "must be those of one process. `vietcombank_captcha.onnx` is imported with `--outputs`, the scores of its five",
        "digits.",
        "",
        f"| package | model | parameters | connections | layers | outputs | {_COMPARED} | all bits equal |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    refused = [
        "",
        "These are refused, for the reasons that the import gives:",
        "",
        "| package | model | parameters | because |",
        "|---|---|---:|---|",
    ]
    for outcome in outcomes:
        head = f"| {outcome.package} | {outcome.file} | {outcome.parameters:,} |"
        if outcome.network is None or outcome.check is None:
            refused.append(f"{head} {_short(outcome.refused)} |")
            continue
        network, check = outcome.network, outcome.check
        connections = sum(layer.weights.nnz for layer in network)
        same = "" if network.widths[-1] == 1 else f"{check.same_argmax:.0%}"
        lines.append(
            f"{head} {connections:,} | {len(network)} | {network.widths[-1]} | {check.largest:.1e} | {check.bound:.1e} "
            f"| {same} | {'no: ' + '; '.join(outcome.unequal) if outcome.unequal else 'yes'} |"
        )
    return "\n".join([*lines, *refused]) + "\n"


def _short(reason: str) -> str:
    """Return a refusal with the first of the nodes that have the same problem."""
    return re.sub(r"(, node '[^']*' \(\w+\))+ (is|becomes|would|has|combines)", r" and others \2", reason).replace(
        "|", "\\|"
    )


if __name__ == "__main__":
    sys.exit(main())
