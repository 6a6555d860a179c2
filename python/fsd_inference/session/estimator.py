"""`Estimator`, a network as an estimator of scikit-learn, which is imported only where it is already in use."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from fsd_inference.config import FailurePolicy, FunctionSettings, Tuning
from fsd_inference.errors import SettingError
from fsd_inference.network import Network, OutputFunction, as_inputs
from fsd_inference.session.session import Session

Inputs = ArrayLike | sparse.sparray | sparse.spmatrix


class Estimator:
    """A network as a fitted estimator of scikit-learn, for pipelines, searches and scores.

    A network with labels or an output function is a classifier, which predicts the label of the largest score (its
    index if there are no labels); any other is a regressor. Both are transformers too. The attributes are those of
    scikit-learn: ``n_features_in_`` and, of a classifier, ``classes_``.

    The session is opened at the first call that needs it and kept until `close`, or until a parameter is set. Pickles
    and clones contain the parameters only.

    Parameters
    ----------
    network : Network or path
        A network, or the path of one, which is opened when it is needed.
    channel, workers, replicas, stack, partition, tuning, functions, failures
        See `Session`.

    Raises
    ------
    InputError
        From the first method that uses the network: a parameter is invalid, or the network cannot be read.

    Examples
    --------
    >>> import fsd_inference as fsd
    >>> network = fsd.Network([fsd.Layer([[1.0, 0.0], [0.0, 1.0]], 0)], labels=["left", "right"])
    >>> with fsd.Estimator(network) as estimator:
    ...     estimator.predict([[2.0, 1.0], [0.0, 3.0]])
    array(['left', 'right'], dtype='<U5')
    """

    def __init__(
        self,
        network: Network | str | os.PathLike[str],
        *,
        channel: str = "serial",
        workers: int | None = None,
        replicas: int = 1,
        stack: str | os.PathLike[str] | None = None,
        partition: str | None = None,
        tuning: Tuning | None = None,
        functions: FunctionSettings | None = None,
        failures: FailurePolicy | None = None,
    ) -> None:
        self.network = network
        self.channel = channel
        self.workers = workers
        self.replicas = replicas
        self.stack = stack
        self.partition = partition
        self.tuning = tuning
        self.functions = functions
        self.failures = failures
        self._loaded: Network | None = None
        self._session: Session | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the session, if there is one; the next call opens another."""
        session, self._session, self._loaded = self._session, None, None
        if session is not None:
            session.close()

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002 - no parameter has parameters
        """Return the parameters by name."""
        return {name: getattr(self, name) for name in _PARAMETERS}

    def set_params(self, **parameters: Any) -> Self:
        """Set parameters by name, and close the session.

        Raises
        ------
        SettingError
            There is no such parameter.
        """
        for name in parameters:
            if name not in _PARAMETERS:
                raise SettingError(f"an Estimator has no parameter {name!r}; it has {', '.join(_PARAMETERS)}")
        self.close()
        for name, value in parameters.items():
            setattr(self, name, value)
        return self

    def fit(self, X: Inputs, y: object = None) -> Self:  # noqa: ARG002, N803 - scikit-learn's names
        """Check that samples fit the network, which stays as it is.

        Raises
        ------
        InputError
            The samples are not finite numbers, or have another number of features.
        """
        as_inputs(X, self.n_features_in_)
        return self

    def predict(self, X: Inputs) -> NDArray[Any]:  # noqa: N803
        """Return the label of each sample, shape (samples,); of a regressor the outputs, one as a 1-D array."""
        if not self._is_classifier:
            outputs = self.transform(X)
            return outputs[:, 0] if outputs.shape[1] == 1 else outputs
        best, _ = OutputFunction("argmax").top(self._outputs(X, scores=True))
        return self._labels()[best[:, 0]]

    def transform(self, X: Inputs) -> NDArray[np.float32]:  # noqa: N803
        """Return the outputs, or what the network's softmax or log-softmax makes of them; samples x outputs."""
        return self._outputs(X, scores=False)

    def fit_transform(self, X: Inputs, y: object = None) -> NDArray[np.float32]:  # noqa: ARG002, N803
        """Return `transform` of the samples."""
        return self.transform(X)

    def score(self, X: Inputs, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:  # noqa: N803
        """Return the accuracy of a classifier, or R² of a regressor, as scikit-learn computes them.

        Parameters
        ----------
        X : array or sparse matrix, samples x features
        y : array_like
            True labels or outputs.
        sample_weight : array_like, shape (samples,), optional
        """
        from sklearn.metrics import accuracy_score, r2_score  # noqa: PLC0415 - optional

        measure = accuracy_score if self._is_classifier else r2_score
        return float(measure(y, self.predict(X), sample_weight=sample_weight))

    @property
    def predict_proba(self) -> Callable[[Inputs], NDArray[np.float32]]:
        """Method that returns probabilities, samples x `classes_`; only if the network's output function is softmax."""
        if self._network().output != OutputFunction("softmax"):
            raise AttributeError("predict_proba needs a network whose output function is softmax")
        return self._probabilities

    @property
    def decision_function(self) -> Callable[[Inputs], NDArray[np.float32]]:
        """Method that returns scores, samples x `classes_`, of two classes their difference; only of a classifier."""
        if not self._is_classifier:
            raise AttributeError("decision_function needs a network with labels or an output function")
        return self._decide

    @property
    def classes_(self) -> NDArray[Any]:
        """Labels of a classifier in ascending order, which scikit-learn's scorers rely on; shape (outputs,)."""
        if not self._is_classifier:
            raise AttributeError("classes_ needs a network with labels or an output function")
        return self._labels()[self._order()]

    @property
    def n_features_in_(self) -> int:
        """Number of features of a sample."""
        return self._network().widths[0]

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_clone__(self) -> Self:
        return type(self)(**self.get_params())  # networks and settings are immutable

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import (  # noqa: PLC0415 - scikit-learn is there when it calls this
            ClassifierTags,
            InputTags,
            RegressorTags,
            Tags,
            TargetTags,
            TransformerTags,
        )

        classifies = self._is_classifier
        return Tags(
            estimator_type="classifier" if classifies else "regressor",
            target_tags=TargetTags(required=False, multi_output=not classifies),
            transformer_tags=TransformerTags(preserves_dtype=[]),
            classifier_tags=ClassifierTags() if classifies else None,
            regressor_tags=None if classifies else RegressorTags(),
            requires_fit=False,
            input_tags=InputTags(sparse=True),
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.get_params()

    def __setstate__(self, state: dict[str, Any]) -> None:
        Estimator.__init__(self, **state)

    def __repr__(self) -> str:
        given = [
            f"{name}={getattr(self, name)!r}"
            for name, parameter in _PARAMETERS.items()
            if getattr(self, name) != parameter.default
        ]
        return f"Estimator({', '.join(given)})"

    @property
    def _is_classifier(self) -> bool:
        network = self._network()
        return network.labels is not None or network.output is not None

    def _labels(self) -> NDArray[Any]:
        """Return the label of each output."""
        network = self._network()
        return np.arange(network.widths[-1]) if network.labels is None else network.labels

    def _order(self) -> NDArray[np.intp]:
        """Return the output of each class."""
        return np.argsort(self._labels(), kind="stable")

    def _probabilities(self, X: Inputs) -> NDArray[np.float32]:  # noqa: N803
        return self.transform(X)[:, self._order()]

    def _decide(self, X: Inputs) -> NDArray[np.float32]:  # noqa: N803
        scores = self._outputs(X, scores=True)[:, self._order()]
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def _network(self) -> Network:
        if self._loaded is None:
            self._loaded = self.network if isinstance(self.network, Network) else Network.load(self.network)
        return self._loaded

    def _outputs(self, x: Inputs, *, scores: bool) -> NDArray[np.float32]:
        if self._session is None:
            settings = {name: value for name, value in self.get_params().items() if name != "network"}
            self._session = Session(self._network(), **settings)
        outputs = self._session.infer(x, scores=scores, outputs="dense").outputs
        assert isinstance(outputs, np.ndarray)  # noqa: S101 - as requested
        return outputs


_PARAMETERS = inspect.signature(Estimator).parameters
