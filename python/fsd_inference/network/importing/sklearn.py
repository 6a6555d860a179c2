"""Multilayer perceptrons of scikit-learn, taken from the estimator itself: scikit-learn need not be imported."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsd_inference.errors import InputError
from fsd_inference.network.checks import shown
from fsd_inference.network.importing.layers import imported_layer
from fsd_inference.network.importing.problems import refuse
from fsd_inference.network.layer import IDENTITY, RELU, Layer

_ESTIMATORS = ("MLPClassifier", "MLPRegressor")
_HIDDEN = {"identity": IDENTITY, "relu": RELU}
_LEFT_OUT = ("identity", "softmax", "logistic")  # of the last layer: the largest output stays the largest


def layers_from_estimator(estimator: Any) -> tuple[list[Layer], NDArray[Any] | None]:
    """Return the layers and labels of `Network.from_sklearn`, which describes them.

    Raises
    ------
    InputError
        If it is another estimator, not fitted, or has activations that a layer cannot do.
    """
    kind = next((cls.__name__ for cls in type(estimator).__mro__ if _is_perceptron(cls)), None)
    if kind is None:
        raise InputError(
            f"only scikit-learn's {' and '.join(_ESTIMATORS)} can be taken, not {shown(estimator)}; of a pipeline "
            "or a search, hand in the estimator within"
        )
    if not hasattr(estimator, "coefs_"):
        raise InputError(f"this {kind} is not fitted; call its fit first")
    problems = []
    if estimator.activation not in _HIDDEN:
        problems.append(
            f"this {kind} has the activation {estimator.activation}, which a layer cannot do; "
            f"train it with {' or '.join(_HIDDEN)}"
        )
    if estimator.out_activation_ not in _LEFT_OUT:
        problems.append(
            f"this {kind} has the output activation {estimator.out_activation_}, without which its outputs are "
            "others; train it with another loss"
        )
    refuse(problems)
    coefs, intercepts = list(estimator.coefs_), list(estimator.intercepts_)
    labels = np.asarray(estimator.classes_) if kind == "MLPClassifier" else None
    if labels is not None and len(labels) == 2 and coefs[-1].shape[1] == 1:
        # Two classes share one output, positive for the second; the first gets one that is always zero.
        coefs[-1] = np.hstack([np.zeros_like(coefs[-1]), coefs[-1]])
        intercepts[-1] = np.array([0.0, *intercepts[-1]])
    activations = [*[_HIDDEN[estimator.activation]] * (len(coefs) - 1), IDENTITY]
    return [
        imported_layer(f"coefs_[{k}] of this {kind}", coef, intercept, activation, transposed=True)
        for k, (coef, intercept, activation) in enumerate(zip(coefs, intercepts, activations, strict=True))
    ], labels


def _is_perceptron(cls: type) -> bool:
    return cls.__name__ in _ESTIMATORS and cls.__module__.startswith("sklearn.")
