"""First-fit packing of messages into the batches of a service."""

from __future__ import annotations

from collections.abc import Sequence


def first_fit(sizes: Sequence[float], entries: int, capacity: float) -> list[int]:
    """Put each item into the first batch that has room for it.

    Parameters
    ----------
    sizes : sequence of float
        Of the items, the largest first.
    entries : int
        Items of a batch, at most.
    capacity : float
        What the sizes of a batch's items add up to, at most. A larger item has a batch of its own.

    Returns
    -------
    list of int
        The batch of each item, numbered from 0 in the order in which they are begun.
    """
    found: list[int] = []
    begun = 0
    room: list[
        tuple[int, int, float]
    ] = []  # batches that can still take the smallest item: number, entries and size left
    for size in sizes:
        for place, (number, left, free) in enumerate(room):
            if size <= free:
                found.append(number)
                if left > 1 and sizes[-1] <= free - size:
                    room[place] = number, left - 1, free - size
                else:
                    del room[place]
                break
        else:
            found.append(begun)
            if entries > 1 and sizes[-1] <= capacity - size:
                room.append((begun, entries - 1, capacity - size))
            begun += 1
    return found
