"""A dense classifier of handwritten digits, pruned to a tenth: by magnitude, and calibrated on a sample of inputs.

Run it with ``python examples/prune_digits.py``. It prints the accuracy of each network, runs the calibrated one over
queues of an emulated AWS, and draws the accuracy over the sparsity to ``pruned.png``. It needs scikit-learn, ministack
and matplotlib: ``pip install 'fsd-inference[local,report]'``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import fsd_inference as fsd

SPARSITY = 0.9
CURVE = (0.5, 0.8, 0.9, 0.95, 0.98)


def main() -> None:
    """Train a classifier, prune it in three ways, and compare what the networks predict for unseen digits."""
    images, digits = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(images, digits, test_size=360, random_state=0)
    estimator = MLPClassifier((256, 128), tol=1e-3, random_state=0).fit(train_x, train_y)
    dense = fsd.Network.from_sklearn(estimator, name="digits")

    def accuracy(network: fsd.Network) -> float:
        with fsd.Session(network, output="argmax") as session:
            return float(np.mean(estimator.classes_[session.infer(test_x).argmax] == test_y))

    networks = {
        "dense": dense,
        "magnitude, by layer": fsd.prune(dense, SPARSITY),
        "calibrated, by layer": fsd.prune(dense, SPARSITY, x=train_x),
        "calibrated, globally": fsd.prune(dense, SPARSITY, by="global", x=train_x),
    }
    for name, network in networks.items():
        print(f"{name}: {network.connections:,} connections, {accuracy(network):.1%} of {len(test_y)} digits are right")

    with fsd.Session(networks["calibrated, globally"], channel="serial") as session:
        expected: Any = session.infer(test_x, outputs="dense").outputs
    with fsd.Session(networks["calibrated, globally"], channel="queue", workers=3) as session:
        outputs: Any = session.infer(test_x, outputs="dense").outputs
    if outputs.tobytes() != expected.tobytes():
        raise SystemExit("queue: the outputs differ from the serial run's")
    print("calibrated, globally: all bits of serial and queue are equal")

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="sparsity, %", ylabel="accuracy, %", title="Digits that are right")
    at = [100 * sparsity for sparsity in CURVE]
    for name, sample in (("magnitude", None), ("calibrated", train_x)):
        right = [100 * accuracy(fsd.prune(dense, sparsity, by="global", x=sample)) for sparsity in CURVE]
        axes.plot(at, right, marker="o", label=f"{name}, globally")
    axes.axhline(100 * accuracy(dense), color="grey", linewidth=1, label="dense")
    axes.legend(frameon=False)
    figure.savefig("pruned.png", dpi=150)
    print("pruned.png shows the accuracy at other sparsities")


if __name__ == "__main__":
    main()
