"""The P that run over `queue` at each publishing quota, with and without pacing: ``make bench BENCH=quotas``.

The network is the Graph Challenge's with 16,384 neurons, divided as for ``BENCH=simulation``. Without pacing, ranks
publish at once and give up a message after six throttled attempts. Runs that a session refuses are not simulated.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from rich.console import Console
from rich.progress import track

import fsd_inference as fsd
from fsd_inference.config import RetrySettings, RunSettings
from fsd_inference.forecast.payloads import dense_payloads
from fsd_inference.forecast.publishing import plan_problem
from fsd_inference.forecast.timing import load_timing
from fsd_inference.forecast.work import rank_work
from fsd_inference.limits import LEAST_PUBLISH_QUOTA, PUBLISH_QUOTAS
from fsd_inference.partitioning import exchange_plan
from fsd_inference.partitioning.sharing import share_rows
from fsd_inference.simulator import Chances, Scenario, SimulatedRun, simulate
from fsd_inference.simulator.queue_model import QueueModel
from fsd_inference.simulator.services import ChannelModel, Services
from fsd_inference.simulator.simulation import Simulation
from fsd_inference.token_bucket import TokenBucket
from tests.bench.bench_simulation import like_outputs_together
from tests.bench.comparisons.pages import markdown


class Unpaced(Simulation):
    """A simulation in which ranks publish at once, and throttled requests have the usual number of attempts."""

    def make_services(self) -> tuple[Services, ChannelModel]:
        services, channel = super().make_services()
        assert isinstance(channel, QueueModel)
        services.retry = RetrySettings()
        channel.shares = [TokenBucket(1e15, 1e15) for _ in self.ranks]
        return services, channel


def main() -> None:
    """Simulate a run for each P and quota, and print its seconds in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--neurons", type=int, default=16_384)
    parser.add_argument("--layers", type=int, default=120)
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 16, 32, 62, 128])
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--live", type=float, default=0.03, help="fraction of samples that are alive after each layer")
    options = parser.parse_args()
    quotas = sorted({*PUBLISH_QUOTAS.values(), LEAST_PUBLISH_QUOTA}, reverse=True)
    network = fsd.graph_challenge(options.neurons, options.layers)
    rows = []
    for workers in track(options.workers, "simulating", console=Console(stderr=True)):
        partition = like_outputs_together(options.neurons, options.layers, workers)
        plan = share_rows(exchange_plan(network, partition))
        it = Scenario(
            partition,
            plan,
            rank_work(network, partition),
            dense_payloads(plan, samples=options.samples, live=options.live),
            RunSettings(workers=workers),
            "queue",
            load_timing(),
            chances=Chances(warm=workers + 1),
        )
        messages = max(map(len, plan.exchanges))
        cells = []
        for quota in quotas:
            limited = replace(it, timing=load_timing(publish_quota=quota))
            is_refused = plan_problem(plan, 1, quota, it.settings.clocks) is not None
            after = "refused" if is_refused else _outcome(simulate(limited))
            cells.append(f"{_outcome(Unpaced(limited).run())} / {after}")
        rows.append([workers, f"{messages:,}", *cells])
    print(markdown(["P", "messages a layer", *(f"{quota:,} a second" for quota in quotas)], rows))


def _outcome(run: SimulatedRun) -> str:
    return f"{run.wall_s:.1f}" if run.error is None else "fails"


if __name__ == "__main__":
    main()
