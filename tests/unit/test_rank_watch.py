"""When a session takes an attempt to be over although its rank 0 still runs, and what it then says."""

from __future__ import annotations

import pytest

from fsd_inference.config import Clocks
from fsd_inference.engine.tree import Tree
from fsd_inference.errors import StallError, StartError, WorkerDiedError
from fsd_inference.launch.processes import EXIT_REPORTED
from fsd_inference.launch.watching import RankWatch
from fsd_inference.stragglers import Lag, Straggler


class Watched:
    """A watch of four ranks, 0 -> 1 -> 2 -> 3, with a clock that the test sets."""

    def __init__(self, workers: int = 4) -> None:
        self.now = 0.0
        self.layers: list[float] = []
        self.stragglers: list[Straggler] = []
        self.watch = RankWatch(
            Tree(workers, 1),
            Clocks(start_s=10, stall_s=20, run_s=100),
            now=lambda: self.now,
            how_ended=lambda rank, code: f"rank {rank} with {code}",
            on_layer=self.layers.append,
            on_straggler=self.stragglers.append,
        )

    def at(self, now: float, *lines: str) -> bool:
        self.now = now
        for line in lines:
            self.watch.on_line(line)
        return self.watch.is_over()

    def wait_until(self, until: float) -> None:
        while self.now < until:
            assert not self.at(min(self.now + 1, until))


ALL = [f"rank-started {rank}" for rank in (1, 2, 3)]


def test_a_run_goes_on_while_no_rank_fails() -> None:
    watched = Watched()
    assert not watched.at(1, *ALL, "1")
    assert not watched.at(99, "2", "rank-ended 3 0", "rank-ended 2 0", "rank-ended 1 0")
    assert watched.layers == [1, 2]
    assert watched.watch.errors == []


@pytest.mark.parametrize("line", ["", "x", "1.5", "rank-ended 1", "rank-ended", "-1"])
def test_other_lines_are_nothing(line: str) -> None:
    watched = Watched()
    assert not watched.at(1, line)
    assert (watched.layers, watched.watch.errors) == ([], [])


def test_a_failure_is_the_end_once_no_other_rank_ends() -> None:
    watched = Watched()
    assert not watched.at(50, *ALL, f"rank-ended 2 {EXIT_REPORTED}")
    assert not watched.at(52, f"rank-ended 3 {EXIT_REPORTED}")
    assert not watched.at(54.9)
    assert watched.at(55.1)  # ranks 0 and 1 are silent
    assert watched.watch.errors == []  # the reports say why


def test_a_rank_that_has_failed_may_wait_for_its_stopped_child() -> None:
    watched = Watched()
    assert not watched.at(50, *ALL, "rank-failed 2")
    assert not watched.at(52, "rank-failed 0")
    assert not watched.at(54, "rank-ended 3 -9")  # killed by its starter, and no reason for anything
    assert watched.at(57.1)
    assert watched.watch.errors == []


def test_ranks_that_end_one_by_one_have_a_limit() -> None:
    watched = Watched(20)
    for rank in range(1, 6):
        assert not watched.at(50 + 2 * rank, f"rank-started {rank}", f"rank-ended {rank} {EXIT_REPORTED}")
    assert watched.at(62.1, f"rank-ended 6 {EXIT_REPORTED}")


def test_a_rank_that_dies_is_named_though_its_starter_may_not_be_able_to() -> None:
    watched = Watched()
    assert not watched.at(5, *ALL, "rank-ended 2 -9", "rank-ended 3 -9")
    assert watched.at(8.1)
    (error,) = watched.watch.errors
    assert isinstance(error, WorkerDiedError)
    assert (error.rank, "rank 2 with -9" in str(error)) == (2, True)


def test_a_rank_that_starts_no_children_is_named() -> None:
    watched = Watched()
    assert not watched.at(9.9, "rank-started 1")
    assert watched.at(10.1)
    (error,) = watched.watch.errors
    assert isinstance(error, StartError)
    assert (error.rank, error.operation, error.retryable) == (1, "start", True)
    assert str(error).startswith("rank 1 did not start rank 2 within 10 s")


def test_a_last_rank_that_is_silent_is_named() -> None:
    watched = Watched()
    assert not watched.at(1, *ALL, "5")
    assert not watched.at(30, "rank-ended 3 0", "rank-ended 2 0", "rank-ended 1 0")
    assert not watched.at(40, "6")
    watched.wait_until(59.9)
    assert watched.at(60.1)
    (error,) = watched.watch.errors
    assert isinstance(error, StallError)
    assert (error.rank, error.layer, error.operation) == (0, 5, "run")


def test_a_rank_alone_may_take_its_time_as_long_as_it_lives() -> None:
    watched = Watched(1)
    for second in range(99):
        assert not watched.at(second, "rank-alive 0")


def test_a_rank_alone_that_is_stopped_is_named() -> None:
    watched = Watched(1)
    assert not watched.at(1, "rank-alive 0", "3")
    watched.wait_until(21)
    assert watched.at(21.1)
    (error,) = watched.watch.errors
    assert isinstance(error, StallError)
    assert (error.rank, error.layer, error.retryable) == (0, 2, True)
    assert str(error) == "rank 0 stopped responding after layer 2; try again"


def test_a_session_that_was_stopped_first_reads_what_it_was_told() -> None:
    watched = Watched(1)
    assert not watched.at(1, "rank-alive 0")
    assert not watched.at(99)
    assert not watched.at(100, "rank-alive 0")


def test_a_slow_rank_is_told_once() -> None:
    watched = Watched()
    watched.at(0, *ALL)
    for second in range(12):
        paces = [f"rank-pace {rank} {second} 60 {second * (0.9 if rank == 2 else 0.2)}" for rank in range(4)]
        assert not watched.at(second, *paces)
    (found,) = watched.stragglers
    assert str(found) == "rank 2 computes 4.5 times slower than the median of the other ranks since layer 0"
    assert watched.watch.straggler() == (Lag(2, found.factor, 6, 11, 60, 1.0, 0.0), 0.0)  # as it is now
