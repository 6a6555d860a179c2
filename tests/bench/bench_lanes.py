"""Back-to-back runs on few lanes, in virtual time, with and without a purge after each: ``make bench BENCH=lanes``.

The leases are the package's own, in a store in memory. A purge takes effect after 60 s, as AWS documents. A caller
starts its next run as soon as the last one has ended or was refused.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta

from rich.console import Console
from rich.table import Table

from fsd_inference.aws.lanes import LaneTable
from fsd_inference.errors import LaneError
from fsd_inference.limits import LANE_WAIT_S
from fsd_inference.stack_description import message_lifetime_s
from fsd_inference.store.memory import MemoryStore

_PURGE_S = 60.0
_START = datetime(2026, 1, 1, tzinfo=UTC)


class World:
    """A virtual clock in seconds, a store that follows it, and the number of purged lanes."""

    def __init__(self) -> None:
        self.now = 0.0
        self.purges = 0
        self.store = MemoryStore(clock=lambda: _START + timedelta(seconds=self.now))

    def table(self, lanes: int) -> LaneTable:
        """Return the leases of all lanes."""
        return LaneTable(
            self.store,
            lanes,
            purge=self._purge,
            settle_s=_PURGE_S,
            lifetime_s=message_lifetime_s(900.0),
            clock=lambda: self.now,
            sleep=self._sleep,
        )

    def _purge(self, _: int) -> None:
        self.purges += 1

    def _sleep(self, seconds: float) -> None:
        self.now += seconds


def play(lanes: int, runs: int, run_s: float, wait_s: float, received: int | None) -> tuple[int, float, float, int]:
    """Play runs that each get `received` messages a queue; None: with a purge after each.

    Returns
    -------
    tuple
        Runs that were refused, the longest wait for a lane and the time of all runs in seconds, and purged lanes.
    """
    world, refused, longest_s = World(), 0, 0.0
    for number in range(runs):
        table, began = world.table(lanes), world.now
        try:
            lease = table.acquire(f"run{number}", 0, 900.0, wait_s)
        except LaneError:
            refused += 1
            continue
        finally:
            longest_s = max(longest_s, world.now - began)
        world.now += run_s
        table.release(lease, received=received)
    return refused, longest_s, world.now, world.purges


def main() -> None:
    """Print what ten runs in a row wait for and take."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--run-s", type=float, default=5.0, help="seconds that a run takes")
    options = parser.parse_args()
    table = Table(title=f"{options.runs} runs of {options.run_s:g} s in a row")
    for name in ("lanes", "after a run", "waits up to", "messages a queue", "refused", "longest wait", "all", "purges"):
        table.add_column(name)
    policies: list[tuple[str, float, int | None]] = [("purged", 60.0, None), ("purged", LANE_WAIT_S, None)]
    policies += [("free", LANE_WAIT_S, messages) for messages in (1_000, 5_000, 20_000)]
    for lanes in (1, 2):
        for name, wait_s, messages in policies:
            refused, longest_s, all_s, purges = play(lanes, options.runs, options.run_s, wait_s, messages)
            said = "" if messages is None else f"{messages:,}"
            table.add_row(
                str(lanes),
                name,
                f"{wait_s:g} s",
                said,
                str(refused),
                f"{longest_s:.0f} s",
                f"{all_s:.0f} s",
                str(purges),
            )
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
