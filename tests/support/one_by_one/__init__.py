"""The test oracle of the simulator: a simulation with one event for each request, on functions or on a shared host."""

from tests.support.one_by_one.host import Host
from tests.support.one_by_one.simulation import simulate_one_by_one

__all__ = ["Host", "simulate_one_by_one"]
