"""Layers of scikit-learn's multilayer perceptrons, taken from the fitted estimator without importing scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsd_inference.errors import InputError
from fsd_inference.network.activation import IDENTITY, RELU, Activation
from fsd_inference.network.checks import shown
from fsd_inference.network.importing.layers import imported_layer
from fsd_inference.network.importing.problems import refuse
from fsd_inference.network.layer import Layer
from fsd_inference.network.output_function import OutputFunction

_ESTIMATORS = ("MLPClassifier", "MLPRegressor")
_SIGMOID = Activation("sigmoid")
_HIDDEN = {"identity": IDENTITY, "relu": RELU, "tanh": Activation("tanh"), "logistic": _SIGMOID}
_OUTPUT = {"identity": IDENTITY, "logistic": _SIGMOID, "softmax": IDENTITY}  # softmax is an output function


def layers_from_estimator(estimator: Any) -> tuple[list[Layer], NDArray[Any] | None, OutputFunction | None]:
    """Build the layers, labels and output function of `Network.from_sklearn`, which documents them.

    Raises
    ------
    InputError
        For any other estimator, or one that is not fitted, has another activation or values that are not finite;
        lists all problems.
    """
    kind = next((cls.__name__ for cls in type(estimator).__mro__ if _is_perceptron(cls)), None)
    if kind is None:
        raise InputError(
            f"only scikit-learn's {' and '.join(_ESTIMATORS)} can be imported, not {shown(estimator)}; of a pipeline "
            "or a search, import the estimator inside"
        )
    if not hasattr(estimator, "coefs_"):
        raise InputError(f"this {kind} is not fitted; call its fit first")
    _check_activations(kind, estimator.activation, estimator.out_activation_)
    coefs, intercepts = list(estimator.coefs_), list(estimator.intercepts_)
    output = OutputFunction("softmax") if estimator.out_activation_ == "softmax" else None
    last = _OUTPUT[estimator.out_activation_]
    labels = np.asarray(estimator.classes_) if kind == "MLPClassifier" else None
    if labels is not None and len(labels) == 2 and coefs[-1].shape[1] == 1:
        # Two classes share one output, positive for the second; the first gets one that is always zero. The logistic
        # function of the one is the softmax of both.
        coefs[-1] = np.hstack([np.zeros_like(coefs[-1]), coefs[-1]])
        intercepts[-1] = np.array([0.0, *intercepts[-1]])
        last, output = IDENTITY, OutputFunction("softmax")
    layers: list[Layer] = []
    problems: list[str] = []
    for k, (coef, intercept) in enumerate(zip(coefs, intercepts, strict=True)):
        activation = last if k == len(coefs) - 1 else _HIDDEN[estimator.activation]
        try:
            layers.append(imported_layer(f"coefs_[{k}] of this {kind}", coef, intercept, activation, transposed=True))
        except InputError as error:
            problems.append(str(error))
    refuse(problems)
    return layers, labels, output


def _check_activations(kind: str, hidden: str, output: str) -> None:
    problems = []
    if hidden not in _HIDDEN:
        problems.append(
            f"this {kind} has the hidden activation {hidden}, which is not supported; "
            f"train it with {' or '.join(_HIDDEN)}"
        )
    if output not in _OUTPUT:
        problems.append(
            f"this {kind} has the output activation {output}, which is not supported and changes its predictions; "
            "train it with another loss"
        )
    refuse(problems)


def _is_perceptron(cls: type) -> bool:
    return cls.__name__ in _ESTIMATORS and cls.__module__.startswith("sklearn.")
