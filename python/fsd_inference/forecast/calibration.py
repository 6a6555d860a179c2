"""Calibration of the kernel rate on one core of this machine, by layer width and batch size."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import numpy as np
from scipy import sparse

from fsd_inference.forecast.timing import Sourced
from fsd_inference.kernels import LayerKernel, RankState, Shard, ShardLayer, encode_block, simd_path
from fsd_inference.network import random_network

NEURONS = (1024, 4096, 16384)
SAMPLES = (1, 32, 1024)
_CONNECTIONS = 32  # per neuron, as in the Graph Challenge networks
_ROUNDS = 3
_ROUND_S = 0.03
_PROCESSORS = Path("/proc/cpuinfo")


def machine() -> str:
    """Describe this machine: processor, cores, SIMD path of the kernels, operating system."""
    try:
        lines = _PROCESSORS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # /proc does not exist or is not readable
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    name = next(named, "") or platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, kernel {simd_path()}, {platform.system()}"


def measure_kernel() -> dict[str, Sourced]:
    """Measure the kernel rate of one core on distinct random weights and dense activations: the best of some rounds.

    Processor time is measured, which excludes that of other programs but not their effect on the caches, so measure on
    an idle machine.

    Returns
    -------
    dict of str to Sourced
        ``kernel.NEURONS.SAMPLES``, in units of 10^9 connections x samples per second.
    """
    source = f"measured on {machine()}, {time.strftime('%Y-%m-%d')}"
    found = {}
    for neurons in NEURONS:
        network = random_network([neurons, neurons], _CONNECTIONS)
        kernel = LayerKernel(*network.layer(0).kernel_arrays())
        for samples in SAMPLES:
            rate = _rate(kernel, neurons, samples)
            found[f"kernel.{neurons}.{samples}"] = Sourced(round(rate / 1e9, 3), source)
    return found


def _rate(kernel: LayerKernel, neurons: int, samples: int) -> float:
    """Return the rate of a rank's products in connections x samples per second.

    Serial inference of many batches is faster: it lays layers out for them.
    """
    x = np.abs(np.random.default_rng(0).standard_normal((neurons, samples), np.float32))
    rows = sparse.csr_array(x)
    block = encode_block(rows.indptr.astype(np.int64), rows.indices.astype(np.int32), rows.data, samples)
    neuron = np.arange(neurons, dtype=np.uint32)
    shard = Shard(0, 1, [[]])
    shard.add(0, ShardLayer(kernel, neuron, np.zeros_like(neuron), neuron, [], []))
    best = float("inf")
    for _ in range(_ROUNDS):
        taken, repeats = 0.0, 0
        while taken < _ROUND_S:
            taken, repeats = taken + _seconds(shard, block, samples), repeats + 1
        best = min(best, taken / repeats)
    return kernel.connections * samples / best


def _seconds(shard: Shard, block: bytes, samples: int) -> float:
    state = RankState(shard, bytes(16), 0, bytes(16), [samples], 1)
    state.put_input(0, 0, block)
    state.assemble(0, 0)
    began = time.process_time()
    state.compute(0, 0, "all")
    return time.process_time() - began
