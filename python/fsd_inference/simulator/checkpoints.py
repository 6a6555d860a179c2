"""The checkpoints that simulated ranks store while they compute, and what a later attempt reads of them."""

from __future__ import annotations

from fsd_inference.engine.checkpoints import checkpoint_layers
from fsd_inference.engine.messages import Phase, Step
from fsd_inference.forecast.memory import row_bytes
from fsd_inference.simulator.rank import Rank
from fsd_inference.simulator.scenario import Scenario
from fsd_inference.simulator.services import Services


class Checkpoints:
    """The checkpoints of one attempt.

    Parameters
    ----------
    scenario : Scenario
    resume_at : int
        The layer at which the attempt starts.
    services : Services
    one : float
        Speed of single-threaded code of a rank.
    """

    def __init__(self, scenario: Scenario, resume_at: int, services: Services, one: float) -> None:
        self._services = services
        self._pack_bytes_per_s = scenario.timing["cpu.pack_bytes_per_s"] * one
        self._sizes = row_bytes(scenario.plan, scenario.payloads).tolist()
        samples = scenario.payloads.samples
        self._shares = [count / sum(samples) for count in samples]
        self._due = checkpoint_layers(scenario.settings.checkpoint_every, scenario.work.layers, resume_at)

    def size(self, rank: Rank, layer: int) -> float:
        """Return the bytes of a rank's rows of a layer but the last, for all samples."""
        rows: float = self._sizes[layer] * (rank.plan.boundary[layer] + rank.plan.interior[layer])
        return rows

    def keep_s(self, rank: Rank, step: Step, phase: Phase, ends: float) -> float:
        """Have a rank keep its rows of a step if a checkpoint is due; return the seconds by which it takes longer.

        The last micro-batch starts a PUT, once the checkpoint before is stored.

        Parameters
        ----------
        rank : Rank
        step, phase
            What it computes.
        ends : float
            When that is computed.
        """
        layer, micro_batch = step
        if phase is Phase.BOUNDARY or layer + 1 not in self._due:
            return 0.0
        seconds = self._shares[micro_batch] * self.size(rank, layer) / self._pack_bytes_per_s / rank.speed
        rank.kept[layer + 1] += 1
        if rank.kept[layer + 1] == len(self._shares):
            seconds += max(0.0, rank.storing_until - ends - seconds)
            start = ends + seconds
            rank.storing_until = start + self._services.request_s(rank, "put", self.size(rank, layer), 0.0, 0, start)
            self._services.count("s3.put")
            rank.checkpoints.append(self.size(rank, layer))
            rank.resume_at = layer + 1
        return seconds
