"""Networks and inputs shared by the benchmarks of whole runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

import fsd_inference as fsd
from tests.support.shared import ROOT, graph_challenge_inputs

CONNECTIONS = 32


@dataclass(frozen=True)
class Case:
    """A network, a batch of inputs, and a name for both."""

    name: str
    network: fsd.Network
    x: sparse.csr_array


def graph_challenge_case(layers: int, samples: int) -> Case:
    """Return the Graph Challenge's network of 1024 neurons with its own inputs if available, otherwise with digits."""
    if (ROOT / "graphchallenge" / "inputs_1024.npz").exists():
        x, what = graph_challenge_inputs(1024, samples), "of the Graph Challenge's inputs"
    else:
        x, what = fsd.digits(1024, samples), "handwritten digits (the Graph Challenge's inputs are not at hand)"
    name = f"Graph Challenge, 1024 neurons x {layers} layers, {x.shape[0]:,} {what}"
    return Case(name, fsd.graph_challenge(1024, layers), x)


def random_case(layers: int, samples: int) -> Case:
    """Return a case of distinct random rows, biases of both signs and dense inputs: no sample dies, no row repeats."""
    network = fsd.random_network([1024] * (layers + 1), CONNECTIONS)
    x = sparse.csr_array(np.random.default_rng(0).standard_normal((samples, 1024), np.float32))
    return Case(f"random, 1024 neurons x {layers} layers, {samples:,} dense random inputs", network, x)
