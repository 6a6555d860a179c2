"""The simulator: runs inference in virtual time to predict time, usage and cost without calling AWS."""

from fsd_inference.simulator.attempts import simulate
from fsd_inference.simulator.scenario import Chances, Scenario, SimulatedRank, SimulatedRun
from fsd_inference.simulator.simulation import with_seed

__all__ = ["Chances", "Scenario", "SimulatedRank", "SimulatedRun", "simulate", "with_seed"]
