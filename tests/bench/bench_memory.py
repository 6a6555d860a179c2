"""Predicted peak memory, compared with that of ranks running locally over sockets; the target error is 20%.

    python -m tests.bench.bench_memory [--samples 2000]

Each prediction is made before its run, from at most a quarter of the run's inputs.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.forecast.memory import rank_bytes
from fsd_inference.forecast.partitioned import Partitioned
from fsd_inference.network import Network, digits
from fsd_inference.network.graph_challenge import graph_challenge

_CASES = (  # kind, neurons, layers, fraction of samples, P, micro-batches; none was used for the fit
    ("random", 384, 14, 3.0, 5, 1),
    ("random", 640, 9, 1.5, 1, 1),
    ("random", 640, 9, 1.5, 6, 2),
    ("random", 1536, 6, 0.75, 3, 1),
    ("random", 1536, 6, 0.75, 7, 5),
    ("random", 3000, 5, 0.6, 5, 1),
    ("random", 3000, 5, 0.6, 5, 3),
    ("random", 12000, 3, 0.1, 6, 1),
    ("radix", 1024, 48, 3.0, 5, 1),
    ("radix", 1024, 48, 1.5, 3, 3),
    ("radix", 4096, 30, 0.4, 6, 1),
    ("radix", 16384, 6, 0.1, 3, 1),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2000)
    samples = parser.parse_args().samples
    print("| network | samples | P | M | predicted, MB | measured, MB | off |\n|---|---|---|---|---|---|---|")
    worst = 0.0
    for kind, neurons, layers, share, workers, micro_batches in _CASES:
        count = round(samples * share)
        network, x = _case(kind, neurons, layers, count)
        planned = Partitioned.cut(network, workers, "graph")
        payloads = planned.payloads(x[: max(1, count // 4)], count, micro_batches)
        work = planned.work
        predicted = rank_bytes(planned.plan, work.inputs, float(work.shard_bytes.max()), payloads)
        tuning = fsd.Tuning(micro_batches=micro_batches)
        with fsd.Session(network, channel="local", workers=workers, tuning=tuning) as session:
            measured = session.infer(x).report.peak_rss_bytes
        off = predicted / measured - 1
        worst = max(worst, abs(off))
        print(
            f"| {kind} {neurons} x {layers} | {count:,} | {workers} | {micro_batches} "
            f"| {predicted / 1e6:.0f} | {measured / 1e6:.0f} | {off:+.0%} |",
            flush=True,
        )
    print(f"largest error {worst:.0%}")


def _case(kind: str, neurons: int, layers: int, samples: int) -> tuple[Network, sparse.csr_array]:
    if kind == "radix":
        return graph_challenge(neurons, layers), digits(neurons, samples)
    x = np.random.default_rng(5).random((samples, neurons), np.float32) < 0.2
    return fsd.random_network([neurons] * (layers + 1), 32, seed=3), sparse.csr_array(x.astype(np.float32))


if __name__ == "__main__":
    main()
