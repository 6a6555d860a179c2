"""A scikit-learn classifier of handwritten digits, pruned and then run by three workers: accuracy at each stage.

Run it with ``python examples/sklearn_digits.py``. It needs scikit-learn, which the extra ``local`` includes:
``pip install 'fsd-inference[local]'``.
"""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import fsd_inference as fsd

KEPT = 0.2  # share of each layer's weights that pruning keeps
EPOCHS = 15  # of fine-tuning, each followed by pruning


def prune(estimator: MLPClassifier) -> None:
    """Set the smallest weights of each layer to zero."""
    for weights in estimator.coefs_:
        weights[np.abs(weights) < np.quantile(np.abs(weights), 1 - KEPT)] = 0


def main() -> None:
    """Train a classifier, prune it by magnitude, import it, and compare the predictions."""
    images, digits = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(images, digits, test_size=360, random_state=0)
    estimator = MLPClassifier((64, 32), tol=1e-3, random_state=0).fit(train_x, train_y)
    predictions = {"trained": estimator.predict(test_x)}

    prune(estimator)
    for _ in range(EPOCHS):
        estimator.partial_fit(train_x, train_y)
        prune(estimator)
    predictions["pruned, scikit-learn"] = estimator.predict(test_x)

    network = fsd.Network.from_sklearn(estimator, name="digits")
    with fsd.Session(network, channel="local", workers=3, output="argmax") as session:
        best = session.infer(test_x).argmax
    predictions["pruned, 3 workers"] = np.array(network.labels)[best]

    total = sum(weights.size for weights in estimator.coefs_)
    print(f"{network.connections:,} of {total:,} weights are left")
    for stage, predicted in predictions.items():
        print(f"{stage}: {(predicted == test_y).mean():.1%} of {len(test_y)} digits are right")


if __name__ == "__main__":
    main()
