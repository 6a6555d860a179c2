"""The attempts of a simulated run: each goes on from the last checkpoint that all ranks of the one before have."""

from __future__ import annotations

from dataclasses import replace

from fsd_inference.errors import DeadlineError, HandedOnError
from fsd_inference.simulator.scenario import Scenario, SimulatedRun
from fsd_inference.simulator.simulation import Simulation, without_collector

_SEEDS_APART = 1_000_003  # of the draws of an attempt and the next one


def simulate(scenario: Scenario) -> SimulatedRun:
    """Simulate a run in virtual time.

    Parameters
    ----------
    scenario : Scenario

    Returns
    -------
    SimulatedRun
        Its `error` is set if the run fails: a timeout expires, a request is throttled until its retries are used
        up, or its functions reach their time limit before a checkpoint is complete.
    """
    with without_collector():
        run = Simulation(scenario).run()
        while isinstance(run.error, HandedOnError) and run.next_layer > run.starts[-1]:
            run = _another(scenario, run)
        return run


def _another(scenario: Scenario, run: SimulatedRun) -> SimulatedRun:
    """Return a run with one more attempt, whose environments are warm."""
    clocks, chances = scenario.settings.clocks, scenario.chances
    if run.wall_s >= clocks.run_s:
        return replace(run, error=DeadlineError(f"the run did not end by its deadline ({clocks.run_s:g} s)"))
    left = replace(clocks, run_s=clocks.run_s - run.wall_s)
    later = replace(
        scenario,
        settings=replace(scenario.settings, clocks=left),
        chances=replace(chances, seed=chances.seed + _SEEDS_APART * len(run.starts), warm=len(run.ranks) + 1),
    )
    found = Simulation(later, [*run.starts, run.next_layer]).run()
    listing_s = scenario.timing.latency("get").mean_s  # the client looks which checkpoints there are
    return replace(
        found,
        scenario=scenario,
        wall_s=run.wall_s + listing_s + found.wall_s,
        usage=run.usage + found.usage,
        earlier=(*run.earlier, *run.ranks),
    )
