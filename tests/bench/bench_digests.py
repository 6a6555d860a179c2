"""What digests of the layers (``--verify``) cost: compute time with and without, ``make bench BENCH=digests``.

Both are measured in turn, and the fastest of several turns counts.
"""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

import fsd_inference as fsd
from tests.bench.cases import Case, graph_challenge_case, random_case


def fastest(case: Case, channel: str, workers: int, turns: int) -> tuple[float, float]:
    """Return the compute seconds without and with digests."""
    sessions = [fsd.Session(case.network, channel=channel, workers=workers, verify=verify) for verify in (False, True)]
    found: list[list[float]] = [[], []]
    try:
        for _ in range(turns):
            for session, seconds in zip(sessions, found, strict=True):
                seconds.append(session.infer(case.x).report.compute_s)
    finally:
        for session in sessions:
            session.close()
    return min(found[0]), min(found[1])


def main() -> None:
    """Run two networks in one process and over two ranks, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=2_000)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()
    table = Table("network", "channel", "P", "without, s", "with, s", "ratio")
    for case in (random_case(options.layers, options.samples), graph_challenge_case(120, options.samples)):
        for channel, workers in (("serial", 1), ("local", 2)):
            without, with_digests = fastest(case, channel, workers, options.turns)
            times = f"{without:.4f}", f"{with_digests:.4f}", f"{with_digests / without:.2f}"
            table.add_row(case.name, channel, f"{workers}", *times)
    Console(width=140, emoji=False).print(table)


if __name__ == "__main__":
    main()
