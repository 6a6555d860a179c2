"""Throughput of the kernels, compared with SciPy and a hand-written C loop: ``make bench BENCH=kernel``.

All rates are GEdges/s: connections of all layers x samples / seconds, including dropped samples. The C loop is
``../shared/limits/kernel_limit.c`` (or ``$FSD_SHARED/limits``): single-core, without checks, skipping nothing.
Each rate is the best of a few rounds. The rounds of all implementations are interleaved, so that a busy moment of the
machine does not affect only one of them. Slow implementations (portable, SciPy) get fewer layers and samples, which
does not change a rate.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import sparse

from fsd_inference.kernels import LayerKernel, SerialState, simd_paths
from fsd_inference.network.graph_challenge import graph_challenge
from fsd_inference.network.model import Network
from fsd_inference.network.random_network import random_network

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("FSD_SHARED", REPOSITORY.parent / "shared"))
SLOW_LAYERS, SLOW_SAMPLES = 8, 512
LIMIT_SAMPLES = 1024


def network(kind: str, neurons: int, layers: int) -> Network:
    """Return a RadiX-Net network, or one with random connections, weights and biases."""
    return graph_challenge(neurons, layers) if kind == "radixnet" else random_network([neurons] * (layers + 1), 32)


def batch(kind: str, neurons: int, samples: int) -> sparse.csr_array:
    """Return the Graph Challenge's inputs for RadiX-Net if available, otherwise random bits of density 0.1."""
    path = SHARED / "graphchallenge" / f"inputs_{neurons}.npz"
    if kind == "radixnet" and path.exists():
        bits = np.unpackbits(np.load(path)["bits"][:samples], axis=1)[:, :neurons].astype(np.float32)
    else:
        bits = (np.random.default_rng(0).random((samples, neurons), dtype=np.float32) < 0.1).astype(np.float32)
    return sparse.csr_array(bits)


def measure(case: dict[str, Any]) -> float:
    """Return the best GEdges/s of one case on this process's SIMD path."""
    layers, x = [], batch(case["kind"], case["neurons"], case["samples"])
    for layer in network(case["kind"], case["neurons"], case["layers"]):
        arrays = layer.kernel_arrays()
        # A layer not marked as zero-preserving drops no samples.
        layers.append(LayerKernel(*arrays[:-1], arrays[-1] and case["drop"]))
    edges = sum(layer.connections for layer in layers) * x.shape[0]
    best = 0.0
    for _ in range(case["rounds"]):
        indptr, indices = x.indptr.astype(np.int64), x.indices.astype(np.int32)
        state = SerialState(indptr, indices, x.data, x.shape[1], case["threads"])
        started = time.perf_counter()
        state.apply(layers)
        best = max(best, edges / (time.perf_counter() - started) / 1e9)
    return best


def measure_on(path: str, case: dict[str, Any]) -> float:
    """Measure one case in a child process, on one SIMD path."""
    if path == "portable" and case["samples"] > 1:
        case = {**case, "samples": min(case["samples"], SLOW_SAMPLES), "layers": min(case["layers"], SLOW_LAYERS)}
    command = [sys.executable, __file__, "--case", json.dumps(case)]
    env = {**os.environ, "FSD_KERNEL": path, "FSD_SHARED": str(SHARED)}
    return float(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)


def measure_scipy(case: dict[str, Any]) -> float:
    """Return SciPy's best rate, with sparse weights and dense activations."""
    layers = list(network(case["kind"], case["neurons"], min(case["layers"], SLOW_LAYERS)))
    weights = [layer.weights for layer in layers]
    y = batch(case["kind"], case["neurons"], min(case["samples"], SLOW_SAMPLES)).toarray().T.copy()
    edges = sum(layer.connections for layer in layers) * y.shape[1]
    best = 0.0
    for _ in range(case["rounds"]):
        started, z = time.perf_counter(), y
        for layer, matrix in zip(layers, weights, strict=True):
            z = matrix @ z
            z += layer.bias.reshape(-1, 1)
            np.maximum(z, 0, out=z)
            if layer.activation and layer.activation.parameters:  # clipped_relu
                np.minimum(z, layer.activation.parameters[0], out=z)
        best = max(best, edges / (time.perf_counter() - started) / 1e9)
    return best


def compile_limit(folder: Path) -> tuple[Path | None, str]:
    """Compile the C loop; return it with a description of what was compiled, or of why it was not."""
    source = SHARED / "limits" / "kernel_limit.c"
    if not source.exists():
        return None, f"SKIPPED kernel_limit.c: {source} is not there (set FSD_SHARED)"
    program = folder / "kernel_limit"
    command = ["gcc", "-O3", "-march=native", str(source), "-o", str(program)]
    note = "kernel_limit.c: AVX-512, as it is"
    if "avx512" not in simd_paths():
        if "avx2" not in simd_paths():
            return None, "SKIPPED kernel_limit.c: this processor has neither AVX-512 nor AVX2 with FMA"
        command[1:1] = ["-I", str(Path(__file__).parent / "avx2_shim")]
        note = "kernel_limit.c: no AVX-512 here, so each of its vectors became two of AVX2 (tests/bench/avx2_shim)"
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return None, f"SKIPPED kernel_limit.c: it could not be compiled ({error})"
    return program, note


def measure_limit(program: Path, case: dict[str, Any]) -> float:
    """Return the C loop's rate at its best panel width; it needs panels of samples, so a single sample has no rate."""
    if case["samples"] == 1:
        return float("nan")
    command = [str(program), str(case["neurons"]), str(min(case["layers"], 24)), str(LIMIT_SAMPLES)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(re.findall(r"best: +([0-9.]+)", output)[0])


def cases(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the cases to measure."""
    chosen: list[dict[str, Any]] = []
    for kind in ("radixnet", "random"):
        for neurons in options.neurons:
            layers = options.layers if neurons == 1024 else max(options.layers * 1024 // neurons, 2)
            for samples in (1, options.samples):
                rounds = 20 if samples == 1 else 1
                common = {"kind": kind, "neurons": neurons, "layers": layers, "samples": samples, "rounds": rounds}
                for threads in (1, 2):
                    # The random network has biases of both signs, so it never drops a sample.
                    drops = (False, True) if kind == "radixnet" and samples > 1 else (False,)
                    chosen.extend({**common, "threads": threads, "drop": drop} for drop in drops)
    return chosen


def rate(value: float) -> str:
    """Format a rate or a ratio; None becomes a dash."""
    return "-" if np.isnan(value) else f"{value:.2f}"


def main() -> None:
    """Measure all cases and print them as a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--neurons", type=int, nargs="+", default=[1024], choices=[1024, 4096, 16384, 65536])
    parser.add_argument(
        "--layers", type=int, default=120, help="layers of the network of 1024 neurons; larger networks get fewer"
    )
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds of every implementation, of which the best counts"
    )
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        sys.stdout.write(f"{measure(json.loads(options.case))}\n")
        return
    console = Console(width=150, emoji=False)
    paths = simd_paths()
    table = Table(title="GEdges/s, and ratios of the fastest path to the others")
    columns = (
        "network",
        "samples",
        "threads",
        "dropped",
        *paths,
        "SciPy",
        "limit loop",
        "of limit",
        "x SciPy",
        "x dense",
    )
    for column in columns:
        table.add_column(column, justify="left" if column == "network" else "right")
    with tempfile.TemporaryDirectory() as folder:
        program, note = compile_limit(Path(folder))
        console.print(note)
        dense: dict[tuple[str, int, int, int], float] = {}
        for case in cases(options):
            rates = dict.fromkeys((*paths, "scipy", "limit"), float("nan"))
            for _ in range(options.rounds):
                turns = {path: measure_on(path, case) for path in paths}
                if case["threads"] == 1 and not case["drop"]:
                    turns["scipy"] = measure_scipy(case)
                    if program is not None:
                        turns["limit"] = measure_limit(program, case)
                rates.update({name: float(np.fmax(rates[name], turn)) for name, turn in turns.items()})
            best = rates[paths[-1]]
            key = (case["kind"], case["neurons"], case["samples"], case["threads"])
            dense.setdefault(key, best)
            table.add_row(
                f"{case['kind']} {case['neurons']} x {case['layers']}",
                str(case["samples"]),
                str(case["threads"]),
                "yes" if case["drop"] else "no",
                *(rate(rates[name]) for name in (*paths, "scipy", "limit")),
                rate(best / rates["limit"]),
                rate(best / rates["scipy"]),
                rate(best / dense[key] if case["drop"] else float("nan")),
            )
    console.print(table)


if __name__ == "__main__":
    main()
