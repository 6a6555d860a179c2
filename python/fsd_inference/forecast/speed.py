"""The speed of the kernels on a Lambda function, a server or a core of this machine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fsd_inference.errors import SettingError
from fsd_inference.forecast.payloads import Payloads
from fsd_inference.forecast.timing import Timing
from fsd_inference.forecast.work import Work
from fsd_inference.limits import MB_PER_VCPU, MICROVM_BURST, MICROVM_MB_PER_VCPU

MOST_VCPUS = 6.0
"""vCPUs of the largest function (AWS Lambda documentation)."""


@dataclass(frozen=True, slots=True)
class Speed:
    """The speed of one rank's processors.

    Attributes
    ----------
    timing : Timing
        Source of the kernel rates and the core factor.
    vcpus : float
        vCPUs of the rank's function (see `vcpus`) or server; on a shared host, the rank's share of the cores.
    threads : int
        Number of kernel threads.
    """

    timing: Timing
    vcpus: float = 1.0
    threads: int = 1
    _grid: Mapping[tuple[int, int], float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_grid", self.timing.kernel_rates())
        if not self._grid:
            raise SettingError("the timing has no kernel rate; measure it with `fsd calibrate`")

    @property
    def one(self) -> float:
        """Speed of single-threaded code, relative to a core of the machine on which the kernels were measured."""
        return min(1.0, self.vcpus) * self.timing["core.factor"]

    @property
    def kernel(self) -> float:
        """Speed of the kernels with all their threads, relative to one such core."""
        return min(self.vcpus, float(self.threads)) * self.timing["core.factor"]

    def rate(self, inputs: int, samples: float) -> float:
        """Return the kernels' rate in connections x samples per second, for a layer's inputs and live samples."""
        return kernel_rate(self._grid, inputs, samples) * self.kernel

    def compute_s(self, work: Work, payloads: Payloads) -> NDArray[np.float64]:
        """Return the kernel time in seconds, layers x P x micro-batches; dead (all-zero) samples cost nothing."""
        found: NDArray[np.float64] = (
            work.connections[:, :, None] * self.connection_s(work.inputs, payloads.samples, payloads.live)[:, None, :]
        )
        return found

    def connection_s(
        self, inputs: Sequence[int], samples: Sequence[int], live: Sequence[float] = ()
    ) -> NDArray[np.float64]:
        """Return the kernel time of one connection in seconds, layers x micro-batches.

        Parameters
        ----------
        inputs : sequence of int
            Number of neurons that each layer reads.
        samples : sequence of int
            Number of samples in each micro-batch.
        live : sequence of float, optional
            Fraction of samples that are not all zero after each layer; by default all are live.
        """
        found = np.zeros((len(inputs), len(samples)))
        known: dict[tuple[int, float], float] = {}  # because most layers are alike
        for layer, width in enumerate(inputs):
            share = live[layer - 1] if layer and live else 1.0
            for micro_batch, size in enumerate(samples):
                left = size * share
                if left > 0:
                    if (width, left) not in known:
                        known[width, left] = left / self.rate(width, left)
                    found[layer, micro_batch] = known[width, left]
        return found


def vcpus(memory_mb: int) -> float:
    """Return the vCPUs of a Lambda function by its memory in MB."""
    return min(MOST_VCPUS, memory_mb / MB_PER_VCPU)


def burst_vcpus(memory_mb: int) -> float:
    """Return the vCPUs that a MicroVM may use, by its baseline memory in MB."""
    return MICROVM_BURST * memory_mb / MICROVM_MB_PER_VCPU


def threads(memory_mb: int) -> int:
    """Return the number of kernel threads that the worker function uses, by its memory in MB."""
    return max(1, round(vcpus(memory_mb)))


def kernel_rate(grid: Mapping[tuple[int, int], float], inputs: int, samples: float) -> float:
    """Interpolate a rate log-log in inputs and samples between the measured rates; clamp outside of them.

    Parameters
    ----------
    grid : mapping of (inputs, samples) to float
        Measured rates.
    inputs : int
    samples : float
    """
    by_inputs: dict[int, dict[int, float]] = {}
    for (neurons, batch), rate in grid.items():
        by_inputs.setdefault(neurons, {})[batch] = rate
    widths = sorted(by_inputs)
    rates = []
    for width in widths:
        batches = sorted(by_inputs[width])
        found = [math.log(by_inputs[width][batch]) for batch in batches]
        rates.append(float(np.interp(math.log(max(samples, 1.0)), np.log(batches), found)))
    return math.exp(float(np.interp(math.log(max(inputs, 1)), np.log(widths), rates)))
