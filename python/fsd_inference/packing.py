"""First-fit packing of messages into batches."""

from __future__ import annotations

from collections.abc import Sequence


def first_fit(sizes: Sequence[float], entries: int, capacity: float) -> list[int]:
    """Put each item into the first batch that has room for it.

    Parameters
    ----------
    sizes : sequence of float
        Sizes of the items, in descending order.
    entries : int
        Maximum number of items in a batch.
    capacity : float
        Maximum sum of the sizes in a batch, in the same unit. A larger item gets a batch of its own.

    Returns
    -------
    list of int
        Number of the batch of each item; batches are numbered from 0 in the order in which they are opened.
    """
    found: list[int] = []
    begun = 0
    # Batches that can still take the smallest item: their number, and the entries and the size left.
    room: list[tuple[int, int, float]] = []
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
