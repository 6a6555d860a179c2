"""Failures of a run's client: all of them name the operation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import fsd_inference as fsd
from fsd_inference.engine.ending import Ended
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import AccessDeniedError, FsdError, InputError, OutputError, RunError, client_operation
from fsd_inference.session.executor import LocalExecutor


def _kinds(base: type[FsdError] = FsdError) -> Iterator[type[FsdError]]:
    yield base
    for kind in base.__subclasses__():
        yield from _kinds(kind)


@pytest.mark.parametrize("kind", list(_kinds()))
def test_each_kind_of_error_names_the_operation_or_what_the_user_gave(kind: type[FsdError]) -> None:
    raised = kind("no")
    with pytest.raises(FsdError) as caught, client_operation("lease", "leasing a lane"):
        raise raised
    if issubclass(kind, InputError | RunError):
        assert caught.value is raised
        return
    assert type(caught.value) is RunError
    assert (str(caught.value), caught.value.operation) == ("leasing a lane: no", "lease")
    assert caught.value.retryable == kind.retryable
    assert caught.value.__cause__ is raised


@pytest.mark.parametrize(("raised", "attempts"), [(OutputError("full"), 2), (AccessDeniedError("no"), 1)])
def test_a_session_whose_client_fails_says_at_what(
    monkeypatch: pytest.MonkeyPatch, raised: FsdError, attempts: int
) -> None:
    made: list[int] = []

    def attempt(_: LocalExecutor, spec: RunSpec, on_layer: Callable[[float], None]) -> Ended:
        del on_layer
        made.append(spec.attempt)
        raise raised

    monkeypatch.setattr(LocalExecutor, "attempt", attempt)
    network = fsd.random_network([8, 8], connections=2, seed=0)
    with (
        fsd.Session(network, workers=2, channel="local") as session,
        pytest.raises(RunError, match="carrying out the attempt: ") as caught,
    ):
        session.infer([[1.0] * 8])
    assert (caught.value.operation, made) == ("run", list(range(attempts)))
