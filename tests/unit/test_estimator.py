"""Networks as estimators: they predict as the estimators that they were made from, and scikit-learn takes them."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.errors import FileFormatError, InputError, SettingError

pytest.importorskip("sklearn", reason="needs scikit-learn")

from sklearn.base import clone, is_classifier, is_regressor
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from sklearn.utils.validation import check_is_fitted

IMAGES, DIGITS = load_digits(return_X_y=True)
NAMES = np.array([f"digit {digit}" for digit in range(10)])[DIGITS]
QUICK: dict[str, Any] = {"hidden_layer_sizes": (24,), "tol": 0.05, "n_iter_no_change": 2, "random_state": 0}


@pytest.fixture(scope="module")
def many() -> MLPClassifier:
    return MLPClassifier(**QUICK).fit(IMAGES, NAMES)


@pytest.fixture(scope="module")
def two() -> MLPClassifier:
    return MLPClassifier(**QUICK).fit(IMAGES, DIGITS % 2)


@pytest.fixture(scope="module")
def regressor() -> MLPRegressor:
    return MLPRegressor(**QUICK).fit(IMAGES, DIGITS)


@pytest.mark.parametrize("which", ["many", "two"])
def test_a_classifier_answers_like_its_origin(which: str, request: pytest.FixtureRequest) -> None:
    origin: MLPClassifier = request.getfixturevalue(which)
    truth = NAMES if which == "many" else DIGITS % 2
    with fsd.Estimator(fsd.Network.from_sklearn(origin)) as estimator:
        assert estimator.fit(IMAGES, truth) is estimator
        assert estimator.classes_.tolist() == origin.classes_.tolist()
        assert estimator.n_features_in_ == origin.n_features_in_ == 64
        assert (estimator.predict(IMAGES) == origin.predict(IMAGES)).all()
        assert estimator.score(IMAGES, truth) == origin.score(IMAGES, truth)
        weights = np.arange(len(truth))
        assert estimator.score(IMAGES, truth, weights) == origin.score(IMAGES, truth, weights)
        probabilities = estimator.predict_proba(IMAGES)
        np.testing.assert_allclose(probabilities, origin.predict_proba(IMAGES), atol=1e-5)
        assert (estimator.transform(IMAGES) == probabilities).all()
        scores = estimator.decision_function(IMAGES)
    if which == "two":
        assert scores.shape == (len(IMAGES),)
        np.testing.assert_allclose(1 / (1 + np.exp(-scores.astype(float))), probabilities[:, 1], rtol=1e-5, atol=1e-12)
    else:
        grown = np.exp(scores.astype(float))
        np.testing.assert_allclose(grown / grown.sum(axis=1, keepdims=True), probabilities, rtol=1e-5, atol=1e-12)


def test_a_regressor_answers_like_its_origin(regressor: MLPRegressor) -> None:
    estimator = fsd.Estimator(fsd.Network.from_sklearn(regressor))
    np.testing.assert_allclose(estimator.predict(IMAGES), regressor.predict(IMAGES), rtol=1e-4, atol=1e-4)
    assert estimator.score(IMAGES, DIGITS) == pytest.approx(regressor.score(IMAGES, DIGITS), rel=1e-5)
    assert estimator.transform(IMAGES).shape == (len(IMAGES), 1)
    for missing in ("predict_proba", "decision_function", "classes_"):
        assert not hasattr(estimator, missing)


def test_scikit_learn_knows_the_kind(many: MLPClassifier, regressor: MLPRegressor) -> None:
    classifies, regresses = (fsd.Estimator(fsd.Network.from_sklearn(origin)) for origin in (many, regressor))
    assert [is_classifier(classifies), is_regressor(classifies)] == [True, False]
    assert [is_classifier(regresses), is_regressor(regresses)] == [False, True]
    check_is_fitted(classifies)


def test_labels_without_softmax_have_scores_and_no_probabilities() -> None:
    estimator = fsd.Estimator(fsd.Network([fsd.Layer(np.eye(3), 0)], labels=["a", "b", "c"]))
    assert not hasattr(estimator, "predict_proba")
    assert estimator.decision_function([[0, 2, 1]]).tolist() == [[0, 2, 1]]
    unnamed = fsd.Estimator(fsd.Network([fsd.Layer(np.eye(3), 0)], output=fsd.OutputFunction("argmax")))
    assert (unnamed.predict([[0, 2, 1]]).tolist(), unnamed.classes_.tolist()) == ([1], [0, 1, 2])


def test_labels_in_any_order_score_as_in_ascending_order(many: MLPClassifier) -> None:
    network = fsd.Network.from_sklearn(many)
    *hidden, last = network
    backwards = fsd.Layer(last.weights[::-1], last.bias[::-1], "identity")
    assert network.labels is not None
    turned = fsd.Network([*hidden, backwards], labels=network.labels[::-1], output=network.output)
    estimator = fsd.Estimator(turned)
    assert estimator.classes_.tolist() == many.classes_.tolist()
    assert (estimator.predict(IMAGES) == many.predict(IMAGES)).all()
    np.testing.assert_allclose(estimator.predict_proba(IMAGES), many.predict_proba(IMAGES), atol=1e-5)
    assert (estimator.transform(IMAGES)[:, ::-1] == estimator.predict_proba(IMAGES)).all()
    for name in ("neg_log_loss", "roc_auc_ovr"):
        scorer = get_scorer(name)
        assert scorer(estimator, IMAGES, NAMES) == pytest.approx(scorer(many, IMAGES, NAMES), rel=1e-4)
    two = fsd.Estimator(fsd.Network([fsd.Layer(np.eye(2), 0)], labels=["b", "a"]))
    assert two.decision_function([[5, 2]]).tolist() == [3]  # in favor of "b", the second class


def test_it_works_in_pipelines_searches_and_validation(many: MLPClassifier) -> None:
    images = sparse.csr_array(IMAGES)
    estimator = fsd.Estimator(fsd.Network.from_sklearn(many))
    last = make_pipeline(MaxAbsScaler(), estimator).fit(images, NAMES)
    scaled = MaxAbsScaler().fit_transform(images)
    assert (last.predict(images) == many.predict(scaled)).all()
    first = make_pipeline(estimator, LogisticRegression(max_iter=2000)).fit(IMAGES, NAMES)
    assert first.score(IMAGES, NAMES) > 0.8
    search = GridSearchCV(estimator, {"replicas": [1, 2]}, cv=2).fit(IMAGES, NAMES)
    assert search.cv_results_["mean_test_score"].tolist() == [search.best_score_] * 2
    folds = cross_val_score(estimator, IMAGES, NAMES, cv=3)
    assert folds.mean() == pytest.approx(many.score(IMAGES, NAMES), abs=1e-9)


def test_parameters_clones_and_pickles(many: MLPClassifier, tmp_path: Path) -> None:
    network = fsd.Network.from_sklearn(many)
    network.save(tmp_path / "net")
    expected = many.predict(IMAGES[:50]).tolist()
    for given in (network, tmp_path / "net", str(tmp_path / "net")):
        estimator = fsd.Estimator(given, replicas=2, tuning=fsd.Tuning(threads=2))
        assert estimator.predict(IMAGES[:50]).tolist() == expected
        for copy in (clone(estimator), pickle.loads(pickle.dumps(estimator))):
            assert copy is not estimator
            assert copy.get_params(deep=False) | {"network": given} == estimator.get_params()
            assert copy.predict(IMAGES[:50]).tolist() == expected
    assert len(pickle.dumps(estimator)) < 1000
    assert repr(estimator) == f"Estimator(network={given!r}, replicas=2, tuning={fsd.Tuning(threads=2)!r})"
    other = fsd.Network([fsd.Layer(np.eye(64), 0)])
    assert estimator.set_params(network=other, replicas=1) is estimator
    assert estimator.predict(IMAGES[:50]).tolist() == IMAGES[:50].tolist()


def test_ranks_predict_the_same(many: MLPClassifier) -> None:
    network = fsd.Network.from_sklearn(many)
    with fsd.Estimator(network, channel="local", workers=2) as ranks, fsd.Estimator(network) as alone:
        assert ranks.predict_proba(IMAGES[:50]).tobytes() == alone.predict_proba(IMAGES[:50]).tobytes()


def test_what_does_not_fit_is_refused(many: MLPClassifier, tmp_path: Path) -> None:
    estimator = fsd.Estimator(fsd.Network.from_sklearn(many))
    for call in (estimator.fit, estimator.predict, estimator.transform, estimator.decision_function):
        with pytest.raises(InputError, match=r"has 3 features per sample, but the network takes 64$"):
            call(np.ones((2, 3)))
    with pytest.raises(SettingError, match=re.escape("no parameter 'layers'; it has network, channel, workers")):
        estimator.set_params(layers=3)
    with pytest.raises(SettingError, match="channel must be one of"):
        estimator.set_params(channel="pigeon").predict(IMAGES)
    with pytest.raises(FileFormatError, match="is not a network"):
        fsd.Estimator(tmp_path).predict(IMAGES)


def test_scikit_learn_is_not_needed() -> None:
    program = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import fsd_inference as fsd\n"
        "network = fsd.Network([fsd.Layer([[1.0], [2.0]], 0)], labels=['a', 'b'])\n"
        "print(fsd.Estimator(network).fit([[1.0]]).predict([[1.0]]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['b']"
