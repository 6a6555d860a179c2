"""Attempts that start after any layer: random networks, cuts, schedules and faults give the same bits."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given, reject
from hypothesis import strategies as st

from fsd_inference.config import WIRES
from fsd_inference.kernels import WireRangeError
from tests.support.schedules import Case, cases, check_answer, outputs
from tests.support.virtual import Faults, Rank

FAULTS = Faults(duplicates=0.3, corrupted=0.3)


def digests(ranks: list[Rank], first: int) -> list[Counter[int]]:
    """Return the digest of each layer from `first` on, by rank."""
    found = [Counter[int]() for _ in ranks]
    for sums, rank in zip(found, ranks, strict=True):
        for layer, part in rank.digests:
            sums[layer] += part
    return [Counter({layer: part % 2**64 for layer, part in sums.items() if layer >= first}) for sums in found]


@given(cases(), st.sampled_from(WIRES), st.data())
def test_an_attempt_goes_on_after_any_layer_with_the_same_bits(case: Case, wire: str, data: st.DataObject) -> None:
    case = replace(case, output="rows")
    try:
        first = case.play(wire=wire, keeps_rows=True)
    except WireRangeError:
        reject()
    if wire == "float32":
        check_answer(case, first)
    whole = outputs(case, first.ranks).tobytes()
    for resume_at in range(1, len(case.network)):
        changed = replace(case, seed=data.draw(st.integers(0, 99)), overlap=data.draw(st.booleans()))
        again = changed.play(
            wire=wire,
            attempt=data.draw(st.integers(1, 3)),
            resume_at=resume_at,
            earlier=first.ranks,
            faults=replace(FAULTS, strays=tuple(first.sent)),
        )
        assert outputs(case, again.ranks).tobytes() == whole
        # Nothing of the layers before was computed.
        assert digests(again.ranks, 0) == digests(first.ranks, resume_at)
