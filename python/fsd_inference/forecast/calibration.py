"""Calibration of the kernel rate on one core of this machine, by layer width and batch size."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import numpy as np
from scipy import sparse

from fsd_inference.forecast.timing import Sourced
from fsd_inference.kernels import LayerKernel, SerialState, read_only, simd_path
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
    """Return the kernel's rate in connections x samples per second."""
    x = sparse.csr_array(np.abs(np.random.default_rng(0).standard_normal((samples, neurons), np.float32)))
    state = SerialState(
        read_only(x.indptr.astype(np.int64)), read_only(x.indices.astype(np.int32)), read_only(x.data), neurons, 1
    )
    state.apply([kernel])  # warm-up: the first product converts the batch into panels
    repeats, best = 1, float("inf")
    for _ in range(_ROUNDS):
        while (taken := _seconds(state, kernel, repeats)) < _ROUND_S:
            repeats = max(repeats + 1, int(1.2 * repeats * _ROUND_S / max(taken, 1e-6)))
        best = min(best, taken / repeats)
    return kernel.connections * samples / best


def _seconds(state: SerialState, kernel: LayerKernel, repeats: int) -> float:
    began = time.process_time()
    state.apply([kernel] * repeats)
    return time.process_time() - began
