"""One engine timed on one pruned network: ``python contestant.py NAME NETWORK SAMPLES THREADS SECONDS``.

It runs in the environment of that engine, so it imports nothing of the project but in the contestants "kernel" and
"session". NETWORK is a file that `bench_pruned.py` has written. Prints the best time in milliseconds of a call, and the
sum of the outputs, which must be about the same for all.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

Run = Callable[..., Any]


def read(path: str) -> list[tuple[Any, Any]]:
    """Return (weights, bias) of each layer; weights are CSR, outputs x inputs."""
    stored = np.load(path)
    layers = []
    for k in range(int(stored["layers"])):
        parts = tuple(stored[f"{k}.{name}"] for name in ("data", "indices", "indptr"))
        layers.append((sparse.csr_matrix(parts, shape=stored[f"{k}.shape"]), stored[f"{k}.bias"]))
    return layers


def onnxruntime(path: str, x: Any, threads: int) -> Run:
    """Return a call of onnxruntime."""
    import onnxruntime as engine  # noqa: PLC0415

    options = engine.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    model = path.replace(".npz", ".onnx")
    session = engine.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})[0]


def deepsparse(path: str, x: Any, threads: int) -> Run:
    """Return a call of deepsparse."""
    import deepsparse as engine  # noqa: PLC0415

    compiled = engine.Engine(path.replace(".npz", ".onnx"), batch_size=len(x), num_cores=threads)
    return lambda: compiled.run([x])[0]


def mkl(path: str, x: Any, threads: int) -> Run:
    """Return a call of mkl."""
    os.environ["MKL_NUM_THREADS"] = str(threads)
    os.environ["MKL_RT"] = str(next(Path(sys.prefix, "lib").glob("libmkl_rt.so.*")))
    from sparse_dot_mkl import dot_product_mkl  # noqa: PLC0415

    # A product with one vector is much faster than with a matrix of one column.
    columns = x[0].copy() if len(x) == 1 else np.ascontiguousarray(x.T)
    layers = [(weights, bias if len(x) == 1 else bias[:, None]) for weights, bias in read(path)]

    def run() -> Any:
        y = columns
        for weights, bias in layers:
            y = dot_product_mkl(weights, y)
            y += bias
            np.maximum(y, 0, out=y)
        return y

    return run


def kernel(path: str, x: Any, threads: int) -> tuple[Run, Run]:
    """Return a call of the kernels, and what makes its argument."""
    from fsd_inference.kernels import LayerKernel, SerialState  # noqa: PLC0415
    from fsd_inference.network import Layer  # noqa: PLC0415

    layers = [LayerKernel(*Layer(weights, bias).kernel_arrays()) for weights, bias in read(path)]
    batch = sparse.csr_array(x)
    arrays = batch.indptr.astype(np.int64), batch.indices.astype(np.int32), batch.data

    def fresh() -> Any:
        return SerialState(*arrays, x.shape[1], threads)

    return lambda state: state.apply(layers) or state, fresh


def session(path: str, x: Any, threads: int) -> Run:
    """Return a call of session."""
    import fsd_inference as fsd  # noqa: PLC0415

    network = fsd.Network([fsd.Layer(weights, bias) for weights, bias in read(path)])
    opened = fsd.Session(network, tuning=fsd.Tuning(threads=threads))
    return lambda: opened.infer(x, outputs="dense").outputs


def best(run: Run, fresh: Run | None, seconds: float) -> tuple[float, Any]:
    """Return the best time in seconds of a call, and what the last one returned; making its argument takes no time."""
    shortest, result, ends, calls = float("inf"), None, time.perf_counter() + seconds, 0
    while time.perf_counter() < ends or calls < 3:
        arguments = () if fresh is None else (fresh(),)
        began = time.perf_counter()
        result = run(*arguments)
        shortest, calls = min(shortest, time.perf_counter() - began), calls + 1
    return shortest, result


def main() -> None:
    """Time the engine that the arguments name, and print."""
    name, path, samples, threads, seconds = sys.argv[1:]
    inputs = read(path)[0][0].shape[1]
    x = np.random.default_rng(1).random((int(samples), inputs), dtype=np.float32)
    contestants: dict[str, Callable[[str, Any, int], Any]] = {
        "onnxruntime": onnxruntime,
        "deepsparse": deepsparse,
        "mkl": mkl,
        "kernel": kernel,
        "session": session,
    }
    made = contestants[name](path, x, int(threads))
    run, fresh = made if isinstance(made, tuple) else (made, None)
    shortest, result = best(run, fresh, float(seconds))
    total = result.result()[2].sum(dtype=np.float64) if name == "kernel" else result.sum(dtype=np.float64)
    sys.stdout.write(f"{shortest * 1e3} {total}\n")


if __name__ == "__main__":
    main()
