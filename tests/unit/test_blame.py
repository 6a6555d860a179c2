"""Which rank is named as the cause of a stall, whoever noticed it first."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsd_inference.config import RunSettings
from fsd_inference.engine.ending import first_error
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import RunError, StallError, WorkerDiedError
from fsd_inference.rank_report import Position, RankReport


def spec(workers: int) -> RunSpec:
    return RunSpec("0" * 32, 0, "1" * 32, 1, 1, 0.0, RunSettings(workers=workers))


def waits(rank: int, layer: int, *others: int, error: RunError) -> RankReport:
    """The report of a rank that waited for frames of `layer` from others when it ended with an error."""
    names = ", ".join(f"rank {other}" for other in others)
    return RankReport(rank, error=error.record(), position=Position(f"waiting for {names}", layer + 1, 0, others))


def computes(rank: int, layer: int, error: RunError) -> RankReport:
    return RankReport(rank, error=error.record(), position=Position(f"computing layer {layer}", layer, 0, ()))


def stall(rank: int, layer: int) -> StallError:
    return StallError(f"no frame from rank {rank}", rank=rank, layer=layer, operation="receive")


@pytest.mark.parametrize(
    ("workers", "told", "rank", "layer", "message"),
    [
        pytest.param(
            6,
            [
                waits(0, 18, 2, error=stall(2, 18)),
                computes(1, 19, stall(2, 18)),
                waits(2, 18, 5, error=stall(2, 18)),
                waits(4, 18, 2, error=stall(2, 18)),
                waits(5, 17, 3, error=stall(2, 18)),
            ],
            3,
            17,
            "rank 3 stopped responding in layer 17 (rank 5, rank 2, rank 0 waited for it); check the log of rank 3 and "
            "try again",
            id="silent at the end of a chain",
        ),
        pytest.param(
            3,
            [waits(0, 4, 1, error=stall(1, 4)), waits(1, 3, 2, error=stall(1, 4)), computes(2, 3, stall(1, 4))],
            2,
            3,
            "rank 2 was still computing layer 3 when the frames of layer 3 were overdue (rank 1, rank 0 waited for "
            "it); check the log of rank 2 and try again",
            id="alive at the end of a chain",
        ),
        pytest.param(
            3,
            [waits(0, 4, 1, error=stall(1, 4)), waits(1, 3, 2, error=stall(1, 4)), waits(2, 4, 0, error=stall(1, 4))],
            2,
            3,
            "a frame of layer 3 from rank 2 was lost (rank 1, rank 0 waited for it); check the log of rank 2 and try "
            "again",
            id="all wait for each other",
        ),
        pytest.param(
            3,
            [waits(0, 4, 1, 2, error=stall(1, 4))],
            1,
            4,
            "no frame from rank 1",
            id="silent neighbour: what was noticed is said as it is",
        ),
        pytest.param(
            2, [RankReport(0, error=stall(1, 4).record())], 1, 4, "no frame from rank 1", id="no positions at all"
        ),
    ],
)
def test_the_end_of_the_chain_is_named(
    workers: int, told: list[RankReport], rank: int, layer: int, message: str
) -> None:
    found = first_error(spec(workers), told, [])
    assert isinstance(found, StallError)
    assert (found.rank, found.layer, found.operation, str(found)) == (rank, layer, "receive", message)
    assert found.retryable


def test_a_reason_at_the_end_of_the_chain_is_the_error() -> None:
    died = WorkerDiedError("rank 3 died", rank=3, operation="run")
    told = [
        waits(0, 4, 1, error=stall(1, 4)),
        waits(1, 3, 2, error=stall(1, 4)),
        waits(2, 3, 3, error=died),
    ]
    found = first_error(spec(4), told, [])
    assert found is not None
    assert found.record() == died.record()


def test_long_chains_are_cut() -> None:
    told = [waits(rank, 20 - rank, rank + 1, error=stall(1, 20)) for rank in range(9)]
    found = first_error(spec(10), told, [])
    assert str(found).startswith(
        "rank 9 stopped responding in layer 12 (rank 8, rank 7, rank 6, rank 5, rank 4, ... waited for it)"
    )


@dataclass(frozen=True)
class Stuck:
    """Ranks that have computed as far as they could: the next layer of each, and from whom it needs which layer."""

    needs: list[list[set[int]]]
    reached: list[int]

    def awaited(self, rank: int, lost: tuple[int, int, int] | None) -> tuple[int, ...]:
        layer = self.reached[rank]
        return tuple(
            source
            for source in sorted(self.needs[layer][rank])
            if self.reached[source] < layer or lost == (source, rank, layer - 1)
        )


@st.composite
def needs(draw: st.DrawFn) -> list[list[set[int]]]:
    """Return for each layer and rank from which others it needs frames of the layer before; for layer 0, none."""
    workers, layers = draw(st.integers(2, 8)), draw(st.integers(2, 8))
    others = [st.sets(st.sampled_from([q for q in range(workers) if q != rank])) for rank in range(workers)]
    return [[set() for _ in range(workers)], *([draw(each) for each in others] for _ in range(layers - 1))]


def advanced(needed: list[list[set[int]]], stopped: dict[int, int], lost: tuple[int, int, int] | None) -> Stuck:
    """Let all ranks compute until nothing moves: `stopped` ranks never end their layer, a `lost` frame never comes."""
    stuck = Stuck(needed, [0] * len(needed[0]))
    moves = True
    while moves:
        moves = False
        for rank, layer in enumerate(stuck.reached):
            if layer < len(needed) and stopped.get(rank) != layer and not stuck.awaited(rank, lost):
                stuck.reached[rank] += 1
                moves = True
    return stuck


def reports_of(
    stuck: Stuck, lost: tuple[int, int, int] | None, silent: set[int], data: st.DataObject
) -> list[RankReport]:
    """The reports of ranks that gave up because one of them, any, ran into its stall clock first."""
    blocked = [
        rank
        for rank, layer in enumerate(stuck.reached)
        if rank not in silent and layer < len(stuck.needs) and stuck.awaited(rank, lost)
    ]
    if not blocked:
        return []
    first = data.draw(st.sampled_from(blocked))
    error = stall(data.draw(st.sampled_from(stuck.awaited(first, lost))), stuck.reached[first] - 1)
    return [
        waits(rank, stuck.reached[rank] - 1, *stuck.awaited(rank, lost), error=error)
        if rank in blocked
        else RankReport(rank, error=error.record(), position=Position("storing its result", stuck.reached[rank], 0, ()))
        for rank in range(len(stuck.reached))
        if rank not in silent
    ]


@given(needs(), st.data())
def test_a_stopped_rank_is_named_whoever_waits_for_it(needed: list[list[set[int]]], data: st.DataObject) -> None:
    workers = len(needed[0])
    stopped, layer = data.draw(st.integers(0, workers - 1)), data.draw(st.integers(0, len(needed) - 1))
    stuck = advanced(needed, {stopped: layer}, None)
    told = reports_of(stuck, None, {stopped}, data)
    if not told:
        return  # nobody needs anything of it
    found = first_error(spec(workers), told, [])
    assert isinstance(found, StallError)
    assert found.rank == stopped
    due = {report.position.layer - 1 for report in told if report.position and stopped in report.position.awaited}
    assert found.layer in due


@given(needs(), st.data())
def test_a_lost_frame_names_its_sender_and_its_layer(needed: list[list[set[int]]], data: st.DataObject) -> None:
    edges = [(q, r, k - 1) for k, layer in enumerate(needed) for r, sources in enumerate(layer) for q in sources]
    if not edges:
        return
    lost = data.draw(st.sampled_from(edges))
    stuck = advanced(needed, {}, lost)
    found = first_error(spec(len(needed[0])), reports_of(stuck, lost, set(), data), [])
    assert found is not None
    assert (found.rank, found.layer) == (lost[0], lost[2])
