"""What a run did and what it would cost: its report as a page, and its requests priced by service.

Run it with ``python examples/report_and_cost.py [DIRECTORY]``; the report goes there, or into ``run1``. The
emulated AWS takes the extra ``local``: ``pip install 'fsd-inference[local]'``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

import fsd_inference as fsd


def main(directory: Path) -> None:
    """Run a batch over queues, save the report, and print its cost by service."""
    network = fsd.random_network([256, 192, 192, 64], connections=16, seed=1)
    samples = np.random.default_rng(2).random((100, 256)) < 0.2  # samples x features

    with fsd.Session(network, channel="queue", workers=3) as session:
        report = session.infer(samples).report
    report.save(directory)
    print(f"{report.wall_s:.2f} s; open {directory / 'report.html'}")
    for kind, count in sorted(report.usage.requests.items()):
        print(f"  {count:4} {kind}")

    # `fsd cost`, as it answers programs: the ranks' seconds here, priced as functions of 1,769 MB in us-east-1.
    command = [sys.executable, "-m", "fsd_inference", "cost", str(directory), "--json"]
    cost = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    for service, usd in cost["services"].items():
        print(f"  USD {usd:.2e} {service}")
    print(f"USD {cost['usd']:.2e} in all, at prices of {cost['prices_of']}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "run1"))
