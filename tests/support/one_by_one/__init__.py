"""The oracle of the simulator: each request an event, on functions or on a host that ranks and services share."""

from tests.support.one_by_one.host import Host
from tests.support.one_by_one.simulation import simulate_one_by_one

__all__ = ["Host", "simulate_one_by_one"]
