"""First-fit packing, compared with a simple implementation."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fsd_inference.packing import first_fit


def slowly(sizes: list[int], entries: int, capacity: int) -> list[int]:
    batches: list[list[int]] = []
    found = []
    for size in sizes:
        fits = [n for n, batch in enumerate(batches) if len(batch) < entries and sum(batch) + size <= capacity]
        if not fits:
            batches.append([])
        found.append(fits[0] if fits else len(batches) - 1)
        batches[found[-1]].append(size)
    return found


@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 10), st.integers(1, 60))
def test_items_go_where_there_is_room_first(sizes: list[int], entries: int, capacity: int) -> None:
    ordered = sorted(sizes, reverse=True)
    assert first_fit(ordered, entries, capacity) == slowly(ordered, entries, capacity)
