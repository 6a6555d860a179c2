"""Schedules of faults: equal seeds give equal ones, and seeds in a row go through all kinds at all places."""

from __future__ import annotations

import pytest

from fsd_inference.chaos.error_answers import ERRORS
from fsd_inference.chaos.schedule import FUNCTION_PLACES, KINDS, LARGEST_P, LAYERS, OF_PROCESSES, PLACES, draw
from fsd_inference.errors import SettingError

SEEDS = range(400)


def test_a_seed_gives_the_same_schedule_in_every_process() -> None:
    """A seed in a report of a failure must keep its meaning within a release."""
    assert [str(draw(seed)) for seed in (1, 7, 61)] == [
        "seed 1: object, P=3, b=2, attempts 2, checkpoints every 2 layers: lose answer at s3.put 8",
        "seed 7: object, P=4, b=4, attempts 1: kill client after layer 6",
        (
            "seed 61: local, P=5, b=2, attempts 1, checkpoints every 2 layers: "
            "disk full 0 after layer 5; rank out of memory 2 after layer 7"
        ),
    ]


def test_seeds_in_a_row_go_through_all_kinds_at_all_places() -> None:
    first = {(draw(seed, PLACES).faults or (None,))[0] for seed in range(80)}
    assert {fault.kind for fault in first if fault is not None} == set(KINDS) - {"none"}
    assert None in first
    pairs = {(draw(seed, PLACES).place, draw(seed, PLACES).name) for seed in SEEDS}
    assert {place for place, _ in pairs} == set(PLACES)
    assert {place for place, name in pairs if name == "kill rank"} == {"local", "queue", "object"}
    assert {place for place, name in pairs if name == "kill coordinator"} == set(FUNCTION_PLACES)


def test_faults_are_within_their_run() -> None:
    for seed in SEEDS:
        schedule = draw(seed, PLACES)
        assert 2 <= schedule.workers <= LARGEST_P
        assert len(schedule.faults) <= 2
        for fault in schedule.faults:
            assert fault.at >= 0
            if fault.kind in OF_PROCESSES and not fault.request:
                assert fault.at < LAYERS
                assert fault.rank is None or fault.rank < schedule.workers
            if fault.detail and fault.request:
                assert fault.detail in ERRORS[fault.request]
            if schedule.place == "local":
                assert not fault.request


def test_a_share_of_the_schedules_has_checkpoints_between_its_layers() -> None:
    every = [draw(seed, PLACES).checkpoint_every for seed in SEEDS]
    assert 0.3 < sum(map(bool, every)) / len(every) < 0.5
    assert max(every) < LAYERS
    (seed,) = [seed for seed in SEEDS if every[seed]][:1]
    assert f"checkpoints every {every[seed]} layers" in str(draw(seed, PLACES))


def test_a_channel_alone() -> None:
    assert {draw(seed, ["queue"]).place for seed in range(50)} == {"queue"}


@pytest.mark.parametrize("places", [[], ["mpi"]])
def test_places_that_there_are_not(places: list[str]) -> None:
    with pytest.raises(SettingError, match="runs take place over local, queue"):
        draw(0, places)
