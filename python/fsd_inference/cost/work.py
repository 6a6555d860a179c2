"""What each rank has to do, in connections and bytes, and how long a function of some size takes for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fsd_inference.cost.frames import Payloads
from fsd_inference.cost.timing import Timing
from fsd_inference.engine.micro_batches import micro_batch_sizes
from fsd_inference.errors import SettingError
from fsd_inference.limits import MB_PER_VCPU
from fsd_inference.partitioning.plan import ExchangePlan

MOST_VCPUS = 6.0


@dataclass(frozen=True, slots=True)
class Work:
    """What the ranks of a partition own.

    Attributes
    ----------
    connections : ndarray of int64, layers x P
        Of each rank's rows of each layer.
    inputs : tuple of int
        Neurons that each layer reads.
    shard_bytes : ndarray of int64, P
        Of each rank's shard.
    """

    connections: NDArray[np.int64]
    inputs: tuple[int, ...]
    shard_bytes: NDArray[np.int64]

    @property
    def layers(self) -> int:
        """L."""
        return int(self.connections.shape[0])

    @property
    def workers(self) -> int:
        """P."""
        return int(self.connections.shape[1])


def dense_payloads(
    plan: ExchangePlan, *, samples: int, micro_batches: int = 1, features: int = 0, live: float = 1.0
) -> Payloads:
    """Return payloads where nothing is known of the inputs: 4 bytes for each row and live sample, none of them zero.

    Parameters
    ----------
    plan : ExchangePlan
    samples, micro_batches : int
        Of the run.
    features : int
        Of the input, all of them sent; 0 leaves the input out.
    live : float
        Share of the samples that are alive after every layer.
    """
    if samples < 1 or not 0 <= live <= 1:
        raise SettingError(f"a run has at least 1 sample and a live share of 0 to 1, not {samples} and {live:g}")
    sizes = micro_batch_sizes(samples, micro_batches)
    a_row = 4.0 * live * np.array(sizes)
    exchanges = tuple(
        np.outer(np.array([edge.rows.size for edge in exchange], np.float64), a_row) for exchange in plan.exchanges
    )
    shares = (live,) * len(exchanges)
    return Payloads(sizes, exchanges, 4.0 * features * samples, shares, shares)


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast the processors of one rank are.

    Attributes
    ----------
    timing : Timing
    memory_mb : int or None
        Of its function; None for a core of this host alone.
    threads : int
        Kernel threads.
    server_vcpus : int or None
        Of its server, if it runs on one of its own.
    """

    timing: Timing
    memory_mb: int | None = None
    threads: int = 1
    server_vcpus: int | None = None
    _grid: Mapping[tuple[int, int], float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_grid", self.timing.kernel_rates())
        if not self._grid:
            raise SettingError("the timing has no kernel rate; measure it with `fsd calibrate`")

    @property
    def vcpus(self) -> float:
        """The function's or the server's vCPUs, or one core of this host."""
        if self.server_vcpus is not None:
            return float(self.server_vcpus)
        return vcpus(self.memory_mb) if self.memory_mb is not None else 1.0

    @property
    def one(self) -> float:
        """Speed of what runs in one thread, as a share of a core where the kernel was measured."""
        return min(1.0, self.vcpus) * self._factor

    @property
    def kernel(self) -> float:
        """Speed of the kernels with their threads, likewise."""
        return min(self.vcpus, float(self.threads)) * self._factor

    @property
    def _factor(self) -> float:
        is_aws = self.memory_mb is not None or self.server_vcpus is not None
        return self.timing["core.factor"] if is_aws else 1.0

    def rate(self, inputs: int, samples: float) -> float:
        """Return connections x samples a second of the kernels on a layer of so many inputs and a live batch."""
        return kernel_rate(self._grid, inputs, samples) * self.kernel

    def compute_s(self, work: Work, payloads: Payloads) -> NDArray[np.float64]:
        """Return the seconds that each rank multiplies, layers x P x micro-batches; samples that are dead cost none."""
        found = np.zeros((*work.connections.shape, len(payloads.samples)))
        per_connection: dict[tuple[int, float], float] = {}  # most layers are alike
        for layer, inputs in enumerate(work.inputs):
            live = payloads.live[layer - 1] if layer else 1.0
            for micro_batch, samples in enumerate(payloads.samples):
                left = samples * live
                if left > 0:
                    if (inputs, left) not in per_connection:
                        per_connection[inputs, left] = left / self.rate(inputs, left)
                    found[layer, :, micro_batch] = work.connections[layer] * per_connection[inputs, left]
        return found


def vcpus(memory_mb: int) -> float:
    """Return the vCPUs of a Lambda function."""
    return min(MOST_VCPUS, memory_mb / MB_PER_VCPU)


def kernel_rate(grid: Mapping[tuple[int, int], float], inputs: int, samples: float) -> float:
    """Return a rate between the measured ones, by the logarithms of inputs and samples; at the edges, the edges'."""
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
