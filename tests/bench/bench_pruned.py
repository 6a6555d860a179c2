"""The kernels and sessions beside other engines on pruned networks: ``make bench BENCH=pruned``.

Networks are multilayer perceptrons of four relu layers with normal weights, of which a part is zero, and biases of both
signs. The engines get dense samples and return dense outputs. The kernel is timed alone, from samples that were read
before; a session from a dense array to its answer. Every time is the best of several turns, taken in rotation.

Peers are installed into ``.work/peers`` at the first run, one environment each; what cannot be installed is skipped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import sparse

REPOSITORY = Path(__file__).resolve().parents[2]
CONTESTANT = Path(__file__).parent / "peers" / "contestant.py"
ENVIRONMENTS = REPOSITORY / ".work" / "peers"
REQUIREMENTS = {
    "deepsparse": ["deepsparse==1.8.0", "onnx==1.14.1", "onnxruntime==1.17.3", "numpy==1.26.4", "scipy==1.13.1"],
    "mkl": ["sparse_dot_mkl==0.9.10", "mkl==2026.2.0", "numpy==2.4.6", "scipy==1.17.1"],
    "onnxruntime": ["onnxruntime==1.32.0", "numpy==2.4.6", "scipy==1.17.1"],
}
OURS = ("kernel", "session")
LAYERS = 4


def write_network(path: Path, neurons: int, sparsity: float) -> None:
    """Write a pruned network as arrays, and beside them as ONNX with zeros for the pruned weights."""
    import onnx  # noqa: PLC0415
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    rng = np.random.default_rng(neurons)
    kept = round(neurons * (1 - sparsity))
    arrays: dict[str, object] = {"layers": LAYERS}
    nodes, constants, tensor = [], [], "x"
    for k in range(LAYERS):
        drawn = sparse.random_array(
            (neurons, neurons),
            density=1 - sparsity,
            dtype=np.float32,
            rng=rng,
            data_sampler=lambda size: rng.standard_normal(size) * np.sqrt(2 / kept),
        )
        weights = sparse.csr_array(drawn)
        weights.sort_indices()
        bias = (0.1 * rng.standard_normal(neurons)).astype(np.float32)
        parts = {"data": weights.data, "indices": weights.indices, "indptr": weights.indptr, "shape": weights.shape}
        arrays |= {f"{k}.{name}": array for name, array in parts.items()} | {f"{k}.bias": bias}
        constants += [
            numpy_helper.from_array(np.ascontiguousarray(weights.toarray().T), f"w{k}"),
            numpy_helper.from_array(bias, f"b{k}"),
        ]
        nodes += [
            helper.make_node("Gemm", [tensor, f"w{k}", f"b{k}"], [f"z{k}"]),
            helper.make_node("Relu", [f"z{k}"], [f"y{k}"]),
        ]
        tensor = f"y{k}"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", neurons]) for name in ("x", tensor)]
    graph = helper.make_graph(nodes, "pruned", ends[:1], ends[1:], constants)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path.with_suffix(".onnx")
    )
    np.savez(path, **arrays)  # type: ignore[arg-type]


def environment(name: str) -> Path | None:
    """Return the Python of a peer's environment, made at the first call; None if it cannot be made."""
    folder = ENVIRONMENTS / name
    python, complete = folder / "bin" / "python", folder / ".complete"
    if not complete.exists():
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS[name]],
        ):
            if subprocess.run(command, check=False).returncode != 0:
                return None
        complete.touch()
    return python


def turn(python: Path, name: str, network: Path, samples: int, options: argparse.Namespace) -> tuple[float, float]:
    """Return the milliseconds of one turn and the sum of the outputs; NaN if the engine fails."""
    arguments = [name, str(network), str(samples), str(options.threads), str(options.seconds)]
    done = subprocess.run([str(python), str(CONTESTANT), *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.stderr.write(f"{name} failed: {done.stderr.strip().splitlines()[-1:]}\n")
        return float("nan"), float("nan")
    milliseconds, total = done.stdout.split()[-2:]
    return float(milliseconds), float(total)


def measured(
    network: Path, samples: int, pythons: dict[str, Path], options: argparse.Namespace
) -> tuple[dict[str, float], bool]:
    """Return the best milliseconds of each contestant, and whether their outputs have about the same sum."""
    times = dict.fromkeys(pythons, float("nan"))
    totals = []
    for _ in range(options.turns):
        for name, python in pythons.items():
            milliseconds, total = turn(python, name, network, samples, options)
            times[name] = float(np.fmin(times[name], milliseconds))
            totals.append(total)
    known = [total for total in totals if np.isfinite(total)]
    return times, bool(np.ptp(known) <= 1e-3 * abs(known[0]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all cells and print them as a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--neurons", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.8, 0.9, 0.95, 0.98])
    parser.add_argument("--samples", type=int, nargs="+", default=[1, 64, 1024])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each turn")
    options = parser.parse_args(arguments)
    console = Console(width=140, emoji=False)
    pythons = dict.fromkeys(OURS, Path(sys.executable))
    for name in REQUIREMENTS:
        python = environment(name)
        if python is None:
            console.print(f"SKIPPED {name}: its environment cannot be made here")
        else:
            pythons[name] = python
    peers = [name for name in pythons if name not in OURS]
    table = Table(title=f"milliseconds of {LAYERS} layers, {options.threads} threads; ratios are best peer / ours")
    for column in ("neurons", "sparsity", "samples", *pythons, "kernel ratio", "session ratio"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        for neurons in options.neurons:
            for sparsity in options.sparsity:
                network = Path(folder) / f"{neurons}_{sparsity}.npz"
                write_network(network, neurons, sparsity)
                for samples in options.samples:
                    times, agree = measured(network, samples, pythons, options)
                    fastest = min((times[name] for name in peers), default=float("nan"))
                    ratios = [f"{fastest / times[name]:.2f}" for name in OURS]
                    shown = [f"{times[name]:.3g}" for name in pythons]
                    table.add_row(f"{neurons}", f"{sparsity}", f"{samples}", *shown, *ratios)
                    if not agree:
                        console.print(f"the engines disagree: {neurons} neurons, {sparsity}, {samples} samples")
    console.print(table)


if __name__ == "__main__":
    main()
