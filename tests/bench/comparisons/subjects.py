"""Networks of the comparisons, with their inputs and cached partitions (partitioning takes minutes)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from scipy import sparse

from fsd_inference.forecast.cut import Cut
from fsd_inference.forecast.partitioned import Partitioned
from fsd_inference.forecast.plan_cache import PlanCache
from fsd_inference.forecast.sampling import sample_payloads
from fsd_inference.network import Network, digits
from fsd_inference.network.graph_challenge import graph_challenge
from tests.support.shared import ROOT, graph_challenge_inputs

GRAPH = "graph"
_SAMPLED = 200  # number of inputs that are computed, fewer for large networks
_SAMPLED_MNIST = 2000  # more, since few stay alive: 3% with 1,024 neurons
_AFFORDABLE = 5e9  # maximum connections x samples to compute
_EDGES = 8  # number of edges of an exchange that are packed to measure sizes


@dataclass(frozen=True)
class Subject:
    """A network and a sample of its inputs.

    Attributes
    ----------
    name : str
        Name in tables.
    network : Network
        The network.
    x : csr_array of float32, samples x features
        Sample of the inputs.
    folder : Path
        Directory of its cached plans.
    inputs : {"digits", "MNIST"}
        Origin of the inputs.
    """

    name: str
    network: Network
    x: sparse.csr_array
    folder: Path
    inputs: str = "digits"

    @classmethod
    def official(cls, neurons: int, folder: Path, layers: int = 120) -> Subject:
        """Return a network of the Graph Challenge with handwritten digits as inputs."""
        return cls(f"{neurons:,} x {layers}", graph_challenge(neurons, layers), digits(neurons, _SAMPLED), folder)

    def with_official_inputs(self) -> Subject:
        """Return the subject with the Graph Challenge's own inputs, derived from MNIST, if they are available."""
        neurons = self.network.widths[0]
        if not (ROOT / "graphchallenge" / f"inputs_{neurons}.npz").exists():
            return self
        return replace(self, x=graph_challenge_inputs(neurons, _SAMPLED_MNIST), inputs="MNIST")

    def cuts(self, wanted: Iterable[tuple[str, int]], samples: int) -> dict[tuple[str, int], Cut]:
        """Return partitions by (partitioner, P), with the sizes of their exchanges for a batch of `samples` samples."""
        found = {}
        for method, workers in wanted:
            kept = PlanCache(self.folder, self.network.digest, method)
            known = kept.get(workers)
            if known is None:
                cut = Partitioned.cut(self.network, workers, method)
                known = cut.plan, cut.work
                kept.put(workers, *known)
            found[method, workers] = known
        sizes = sample_payloads(
            self.network,
            [plan for plan, _ in found.values()],
            self.x,
            samples=samples,
            most_samples=max(24, min(self.x.shape[0], round(_AFFORDABLE / self.network.connections))),
            most_edges=_EDGES,
        )
        return {which: Cut(*cut, payloads) for (which, cut), payloads in zip(found.items(), sizes, strict=True)}
