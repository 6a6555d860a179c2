"""Errors and speed of the activation functions: ``make bench BENCH=activations``.

Each function is compared with a 64-bit reference of SciPy over every 61st of all float32 bit patterns, 70 million
values, in units in the last place (ulp) of the reference. 0.5 is a correctly rounded result. Speeds are of one core.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from fsd_inference.kernels import activate, simd_path
from fsd_inference.network import Activation
from fsd_inference.network.activation import ACTIVATION_KINDS
from tests.support.reference import FUNCTIONS, PARAMETERS, ulps

CHUNK = 1 << 22


def main() -> None:
    """Print a table with the largest error of each function, where it is, and the speed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", type=int, default=61, help="compare every STEP-th bit pattern")
    step = parser.parse_args().step
    table = Table("activation", "values", "largest error (ulp)", "at z", "million values/s")
    for kind in ACTIVATION_KINDS:
        if kind == "prelu":  # computed as leaky_relu
            continue
        activation = Activation(kind, *PARAMETERS.get(kind, []))
        count, largest, place, seconds = 0, 0.0, 0.0, 0.0
        for start in range(0, 2**32, CHUNK * step):
            bits = np.arange(start, min(start + CHUNK * step, 2**32), step, dtype=np.uint64).astype(np.uint32)
            z = bits.view(np.float32)
            z = np.ascontiguousarray(z[np.isfinite(z)])
            if not z.size:
                continue
            began = time.perf_counter()
            found = activate(activation.kind, list(activation.parameters), z)
            seconds += time.perf_counter() - began
            with np.errstate(over="ignore", under="ignore"):
                errors = ulps(found, FUNCTIONS[kind](z.astype(np.float64), *activation.parameters))
            worst = int(np.argmax(errors))
            if errors[worst] > largest:
                largest, place = float(errors[worst]), float(z[worst])
            count += z.size
        table.add_row(str(activation), f"{count:,}", f"{largest:.5f}", f"{place:.6g}", f"{count / seconds / 1e6:,.0f}")
    console = Console(emoji=False)
    console.print(f"kernel path {simd_path()}")
    console.print(table)


if __name__ == "__main__":
    main()
