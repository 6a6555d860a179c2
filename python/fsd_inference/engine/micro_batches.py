"""Cutting a batch into micro-batches."""

from __future__ import annotations


def micro_batch_sizes(samples: int, micro_batches: int) -> tuple[int, ...]:
    """Return the sizes of nearly equal, consecutive, non-empty micro-batches, the larger ones first.

    There are `micro_batches` of them, but never more than samples.
    """
    count = max(1, min(micro_batches, samples))
    small, larger = divmod(samples, count)
    return tuple(small + (m < larger) for m in range(count))
