"""A classifier trained with scikit-learn, pruned, and run by three workers: its accuracy before and after.

Run it with ``python examples/sklearn_digits.py``; scikit-learn comes with the extra ``local``:
``pip install 'fsd-inference[local]'``.
"""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import fsd_inference as fsd

KEPT = 0.2  # the share of each layer's weights that stays


def main() -> None:
    """Train on digits, set the smallest weights to zero, import the network, and compare what is predicted."""
    images, digits = load_digits(return_X_y=True)
    images = images / 16
    train_x, test_x, train_y, test_y = train_test_split(images, digits, test_size=360, random_state=0)

    estimator = MLPClassifier((128, 64), tol=1e-3, random_state=0).fit(train_x, train_y)
    trained = estimator.predict(test_x)
    for weights in estimator.coefs_:
        weights[np.abs(weights) < np.quantile(np.abs(weights), 1 - KEPT)] = 0
    pruned = estimator.predict(test_x)

    network = fsd.Network.from_sklearn(estimator, name="digits")
    weights = sum(coef.size for coef in estimator.coefs_)
    print(f"{network.connections:,} of {weights:,} weights are left")
    with fsd.Session(network, channel="local", workers=3) as session:
        outputs = session.infer(test_x).outputs
    distributed = network.labels[outputs.toarray().argmax(axis=1)]

    for name, predicted in (
        ("trained", trained),
        ("pruned, scikit-learn", pruned),
        ("pruned, 3 workers", distributed),
    ):
        print(f"{name}: {(predicted == test_y).mean():.1%} of {len(test_y)} digits are right")


if __name__ == "__main__":
    main()
