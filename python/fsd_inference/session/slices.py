"""Replicas over slices of a batch: split the batch, run the slices in parallel, concatenate the answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
from scipy import sparse

from fsd_inference.engine.gather import Summary
from fsd_inference.engine.micro_batches import micro_batch_sizes
from fsd_inference.engine.output_forms import OutputForm, Rows, in_form
from fsd_inference.errors import RunError, run_error_from_record
from fsd_inference.progress import Progress
from fsd_inference.threads import Waitable, start

Result = TypeVar("Result")

_GRACE_S = 5.0
"""Maximum wait for each replica to stop after an interrupt, in seconds."""


def slices(samples: int, replicas: int) -> list[slice]:
    """Split a batch into at most `replicas` consecutive, non-empty slices of nearly equal size."""
    sizes = micro_batch_sizes(samples, replicas)
    ends = np.cumsum(sizes).tolist()
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def side_by_side(work: Callable[[int], Result], count: int, stop: Callable[[], None]) -> list[Result]:
    """Return the results of ``work(0)`` to ``work(count - 1)``, computed in parallel by one thread each.

    Parameters
    ----------
    work : callable
        If calls raise, the exception of the lowest number is raised here after all calls have ended.
    count : int
        Number of calls; a single one is made by the calling thread.
    stop : callable
        Called if the calling thread is interrupted; must make the other threads end soon.
    """
    if count == 1:
        return [work(0)]
    results: dict[int, Result] = {}
    errors: dict[int, BaseException] = {}

    def carry_out(number: int) -> None:
        try:
            results[number] = work(number)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            errors[number] = error

    threads = [Waitable(partial(carry_out, number), f"replica-{number}") for number in range(count)]
    try:
        for thread in threads:
            start(thread)
        for thread in threads:
            thread.ended.wait()
    except BaseException:
        stop()
        for thread in threads:
            if thread.ident is not None:
                thread.ended.wait(_GRACE_S)
        raise
    if errors:
        raise errors[min(errors)]
    return [results[number] for number in range(count)]


def of_replica(error: RunError, number: int, parts: Sequence[slice]) -> RunError:
    """Return the error of a replica with its number and samples named; unchanged if there is only one replica."""
    if len(parts) == 1:
        return error
    part = parts[number]
    where = f"replica {number} of {len(parts)} (samples {part.start} to {part.stop - 1})"
    return run_error_from_record({**error.record(), "message": f"{where}: {error}", "rank": number})


def concatenated(
    answers: Sequence[tuple[Rows | None, Summary | None]], form: OutputForm | None
) -> tuple[Rows | None, Summary | None]:
    """Concatenate the answers of all slices, each of which is CSR or already in its form, to that of the batch."""
    rows = [part for part, _ in answers if part is not None]
    if rows:
        return _concatenated_rows(rows, form), None
    summaries = [summary for _, summary in answers if summary is not None]
    return None, (
        np.concatenate([values for values, _ in summaries]),
        np.concatenate([neurons for _, neurons in summaries]),
    )


def _concatenated_rows(rows: Sequence[Rows], form: OutputForm | None) -> Rows:
    dense = [part for part in rows if isinstance(part, np.ndarray)]
    if len(dense) == len(rows):
        return dense[0] if len(dense) == 1 else np.concatenate(dense)
    parts = [sparse.csr_array(part) for part in rows]
    return in_form(parts[0] if len(parts) == 1 else sparse.csr_array(sparse.vstack(parts, format="csr")), form)


class CombinedProgress:
    """Progress of several replicas, reported as one task.

    Parameters
    ----------
    progress : Progress
    task : str
    replicas : int
    """

    def __init__(self, progress: Progress, task: str, replicas: int) -> None:
        self._progress = progress
        self._task = task
        self._done = [0.0] * replicas
        self._lock = threading.Lock()

    def advance(self, replica: int, done: float) -> None:
        """Set the number of layers that a replica has completed, and report the sum."""
        with self._lock:
            self._done[replica] = done
            self._progress.advance(self._task, sum(self._done))
