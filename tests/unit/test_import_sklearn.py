"""Networks of scikit-learn's multilayer perceptrons predict what the estimators predict."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fsd_inference as fsd
from fsd_inference.errors import InputError
from fsd_inference.network import Network, OutputFunction
from tests.support.runs import dense

pytest.importorskip("sklearn", reason="needs scikit-learn")

from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline

IMAGES, DIGITS = load_digits(return_X_y=True)
QUICK: dict[str, Any] = {"hidden_layer_sizes": (24, 12), "tol": 0.05, "n_iter_no_change": 2, "random_state": 0}


def outputs_of(network: Network, x: NDArray[Any]) -> NDArray[np.float32]:
    with fsd.Session(network, channel="serial") as session:
        return dense(session.infer(x).outputs)


def predicted(network: Network, x: NDArray[Any]) -> NDArray[Any]:
    assert network.labels is not None
    return np.asarray(network.labels[outputs_of(network, x).argmax(axis=1)])


@pytest.mark.parametrize("activation", ["relu", "identity", "tanh", "logistic"])
def test_a_classifier_of_digits_that_is_pruned(tmp_path: Path, activation: str) -> None:
    names = np.array([f"digit {digit}" for digit in range(10)])
    estimator = MLPClassifier(activation=activation, **QUICK).fit(IMAGES, names[DIGITS])
    for coef in estimator.coefs_:
        coef[np.abs(coef) < np.quantile(np.abs(coef), 0.5)] = 0
    network = Network.from_sklearn(estimator, name="digits")
    assert (predicted(network, IMAGES) == estimator.predict(IMAGES)).all()
    assert network.widths == (64, 24, 12, 10)
    assert network.connections == sum(np.count_nonzero(coef) for coef in estimator.coefs_)
    kind = "sigmoid" if activation == "logistic" else activation
    assert [str(layer.activation) for layer in network] == [kind, kind, "identity"]
    network.save(tmp_path / "net")
    loaded = Network.load(tmp_path / "net")
    assert (loaded.name, loaded.origin) == ("digits", "scikit-learn MLPClassifier")
    assert loaded.labels is not None
    assert loaded.labels.tolist() == names.tolist()


def test_outputs_are_probabilities() -> None:
    estimator = MLPClassifier(**QUICK).fit(IMAGES, DIGITS)
    network = Network.from_sklearn(estimator)
    assert network.output == OutputFunction("softmax")
    np.testing.assert_allclose(
        outputs_of(network, IMAGES[:50]), estimator.predict_proba(IMAGES[:50]), rtol=1e-3, atol=1e-6
    )


@pytest.mark.parametrize("labels", [np.array([False, True]), np.array(["odd", "even"]), np.array([7, -7])])
def test_two_classes_have_two_outputs(labels: NDArray[Any]) -> None:
    estimator = MLPClassifier(**QUICK).fit(IMAGES, labels[DIGITS % 2])
    network = Network.from_sklearn(estimator)
    outputs = outputs_of(network, IMAGES)
    assert outputs.shape == (len(IMAGES), 2)
    assert (predicted(network, IMAGES) == estimator.predict(IMAGES)).all()
    np.testing.assert_allclose(outputs, estimator.predict_proba(IMAGES), atol=1e-5)


def test_several_labels_at_once_have_a_probability_each() -> None:
    several = np.stack([DIGITS % 2 == 0, DIGITS > 4, DIGITS == 3], axis=1).astype(int)
    estimator = MLPClassifier(**QUICK).fit(IMAGES, several)
    network = Network.from_sklearn(estimator)
    outputs = outputs_of(network, IMAGES)
    assert ((outputs > 0.5) == estimator.predict(IMAGES)).all()
    np.testing.assert_allclose(outputs, estimator.predict_proba(IMAGES), rtol=1e-3, atol=1e-5)
    assert network.labels is not None
    assert network.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("targets", [DIGITS, np.stack([DIGITS, -DIGITS], axis=1)])
def test_a_regressor(targets: NDArray[Any]) -> None:
    estimator = MLPRegressor(**QUICK).fit(IMAGES, targets)
    network = Network.from_sklearn(estimator)
    outputs = outputs_of(network, IMAGES[:100])
    np.testing.assert_allclose(
        outputs.reshape(100, *targets.shape[1:]), estimator.predict(IMAGES[:100]), rtol=1e-4, atol=1e-4
    )
    assert network.labels is None


class OfTheUser(MLPClassifier):  # type: ignore[misc]
    """A subclass is as good."""


def test_a_subclass_is_taken() -> None:
    estimator = OfTheUser(**QUICK).fit(IMAGES, DIGITS)
    network = Network.from_sklearn(estimator)
    assert (predicted(network, IMAGES) == estimator.predict(IMAGES)).all()
    assert network.origin == "scikit-learn OfTheUser"


def broken() -> MLPClassifier:
    estimator = MLPClassifier(**QUICK).fit(IMAGES, DIGITS)
    estimator.coefs_[0][3, 5] = np.nan
    estimator.intercepts_[2][4] = np.inf
    return estimator


def with_activations(hidden: str, output: str) -> MLPRegressor:
    estimator = MLPRegressor(**QUICK).fit(IMAGES, DIGITS)
    estimator.activation, estimator.out_activation_ = hidden, output
    return estimator


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (MLPClassifier, "this MLPClassifier is not fitted; call its fit first"),
        (lambda: make_pipeline(MLPClassifier()), "only scikit-learn's MLPClassifier and MLPRegressor can be imported"),
        (lambda: "model.pkl", "can be imported, not 'model.pkl'"),
        (lambda: MLPClassifier, "can be imported, not <class"),
        (
            lambda: with_activations("swish", "exp"),
            "2 problems: this MLPRegressor has the hidden activation swish, which is not supported",
        ),
        (
            lambda: with_activations("relu", "exp"),
            "this MLPRegressor has the output activation exp, which is not supported and changes its predictions",
        ),
        (
            broken,
            "2 problems: coefs_[0] of this MLPClassifier: the weight of output 5 and input 3 (counted from 0) is NaN",
        ),
        (broken, "; coefs_[2] of this MLPClassifier: the bias of output 4 (counted from 0) is NaN"),
    ],
)
def test_what_cannot_be_a_network_is_refused(make: Any, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        Network.from_sklearn(make())
    assert "\n" not in str(caught.value)
