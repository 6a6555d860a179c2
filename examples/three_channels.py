"""The same answer over three channels: a random network, cut for three workers, beside the serial run.

Run it with ``python examples/three_channels.py``; ``queue`` and ``object`` start an emulated AWS on this machine, which
takes the extra ``local``: ``pip install 'fsd-inference[local]'``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import fsd_inference as fsd


def main() -> None:
    """Answer one batch over each channel, and compare all bits with those of the serial run."""
    network = fsd.random_network([256, 192, 192, 64], connections=16, seed=1)
    samples = np.random.default_rng(2).random((100, 256)) < 0.2  # samples x features

    with fsd.Session(network, channel="serial") as session:
        expected: Any = session.infer(samples, outputs="dense").outputs

    for channel in ("local", "queue", "object"):
        with fsd.Session(network, channel=channel, workers=3) as session:
            answer = session.infer(samples, outputs="dense")
        outputs: Any = answer.outputs
        if outputs.tobytes() != expected.tobytes():
            raise SystemExit(f"{channel}: the outputs differ from the serial run's")
        report = answer.report
        requests = sum(report.usage.requests.values())
        print(f"{channel}: {report.workers} workers, {requests} requests")
    print("serial, local, queue and object: all bits are equal")


if __name__ == "__main__":
    main()
