"""Time and memory of importing a large model of which most weights are zero: ``make bench BENCH=import``.

Each form of the model is read plainly (its bytes, by NumPy or safetensors) and imported and stored, as
``fsd network import --no-check`` does, each in a fresh process. "Cold" is after the system was asked to drop the files
from its cache, "warm" after they were read. Times are the best of the rounds, and exclude the start of Python and its
modules; memory is the largest resident set beyond that of a process that has only imported the same modules. The aim
is at most twice the time and one and a half times the size of the files.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
from rich.console import Console
from rich.table import Table
from safetensors.numpy import load_file, save_file
from scipy import sparse

from fsd_inference.network import import_network

REPOSITORY = Path(__file__).resolve().parents[2]


def forms(folder: Path) -> dict[str, Path]:
    """Return the path of each form, which is what to import."""
    return {
        "ONNX, in one file": folder / "inline.onnx",
        "ONNX, data beside it": folder / "beside" / "model.onnx",
        "safetensors": folder / "model.safetensors",
        "matrices .npy": folder / "npy",
        "matrices .npz": folder / "npz",
    }


def make(folder: Path, layers: int, width: int, zeros: float) -> None:
    """Store a random model in each form."""
    paths = forms(folder)
    rng = np.random.default_rng(0)
    shape = width, width
    matrices = [
        rng.standard_normal(shape, np.float32) * (rng.random(shape, np.float32) >= zeros) for _ in range(layers)
    ]
    for name in ("beside", "npy", "npz"):
        (folder / name).mkdir()
    nodes, tensors, before = [], [], "x"
    for k, matrix in enumerate(matrices):
        tensors.append(onnx.numpy_helper.from_array(matrix, f"{k}.weight"))
        nodes.append(onnx.helper.make_node("Gemm", [before, f"{k}.weight"], [f"z{k}"], transB=1))
        nodes.append(onnx.helper.make_node("Relu", [f"z{k}"], [f"y{k}"]))
        before = f"y{k}"
        np.save(folder / "npy" / f"layer-{k}.npy", matrix)
        sparse.save_npz(folder / "npz" / f"layer-{k}.npz", sparse.csr_array(matrix), compressed=False)
    values = onnx.helper.make_tensor_value_info
    ends = [values("x", 1, ("N", matrices[0].shape[1]))], [values(before, 1, ("N", matrices[-1].shape[0]))]
    graph = onnx.helper.make_graph(nodes, "graph", *ends, tensors)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, paths["ONNX, in one file"])
    onnx.save(model, paths["ONNX, data beside it"], save_as_external_data=True, location="model.bin")
    save_file({f"{k}.weight": matrix for k, matrix in enumerate(matrices)}, paths["safetensors"])


def files_of(path: Path) -> list[Path]:
    """Return the files of one form."""
    if path.is_dir():
        return sorted(path.iterdir())
    return [path] if path.parent.name != "beside" else [path, path.with_suffix(".bin")]


def read(path: Path, _target: Path) -> None:
    """Read all bytes of a form."""
    for file in files_of(path):
        if file.suffix == ".safetensors":
            load_file(file)
        else:
            np.fromfile(file, np.uint8)


def store(path: Path, target: Path) -> None:
    """Import a form and store the network."""
    layers = [str(k) for k in range(len(load_names(path)))] if path.suffix == ".safetensors" else None
    import_network(path, layers=layers).save(target)


def load_names(path: Path) -> list[str]:
    """Return the tensors of a safetensors file."""
    with path.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return [name for name in header if name != "__metadata__"]


JOBS: dict[str, Callable[[Path, Path], None]] = {"none": lambda _path, _target: None, "read": read, "import": store}


def work(job: str, path: Path, cold: bool) -> None:
    """Do one job in this process, and print its seconds and the process's largest resident set in bytes."""
    for file in files_of(path):
        if cold:
            with file.open("rb") as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        else:
            with file.open("rb") as stream:
                while stream.read(1 << 20):
                    pass
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        started = time.perf_counter()
        JOBS[job](path, Path(folder) / "net")
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sys.stdout.write(json.dumps([seconds, peak]))


def measured(job: str, path: Path, *, cold: bool, rounds: int) -> tuple[float, float]:
    """Return the fewest seconds and bytes of a job over some fresh processes."""
    command = [sys.executable, "-m", "tests.bench.bench_import", "--job", job, "--path", str(path)]
    command += ["--cold"] if cold else []
    done: list[Any] = [
        json.loads(subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout)
        for _ in range(rounds)
    ]
    return min(seconds for seconds, _ in done), min(peak for _, peak in done)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--width", type=int, default=4472)
    parser.add_argument("--zeros", type=float, default=0.9, help="fraction of the weights")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cold", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        work(options.job, options.path, options.cold)
        return
    table = Table(title="import, and ratios to reading and to the size of the files")
    for column in ("form", "MB", "cold: read, s", "import, s", "ratio", "warm: read, s", "import, s", "ratio"):
        table.add_column(column, justify="left" if column == "form" else "right")
    table.add_column("peak, MB", justify="right")
    table.add_column("of size", justify="right")
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own: a child's largest resident set starts at that of its parent.
        maker = get_context("spawn").Process(
            target=make, args=(Path(folder), options.layers, options.width, options.zeros)
        )
        maker.start()
        maker.join()
        for form, path in forms(Path(folder)).items():
            size = sum(file.stat().st_size for file in files_of(path))
            _, bare = measured("none", path, cold=False, rounds=1)
            cells, peak = [], 0.0
            for cold in (True, False):
                plain, _ = measured("read", path, cold=cold, rounds=options.rounds)
                seconds, peak = measured("import", path, cold=cold, rounds=options.rounds)
                cells += [f"{plain:.2f}", f"{seconds:.2f}", f"{seconds / plain:.1f}"]
            peak -= bare
            table.add_row(form, f"{size / 1e6:.0f}", *cells, f"{peak / 1e6:.0f}", f"{peak / size:.2f}")
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
