"""The life of one rank, from its claim to its report; called once its stores, channel and launcher are open."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from fsd_inference.channels.base import Channel
from fsd_inference.deadlines import CLEANUP_S, within
from fsd_inference.engine.driver import Driver, RankWork
from fsd_inference.engine.launcher import Launcher
from fsd_inference.engine.reporting import rank_report
from fsd_inference.engine.spec import RunSpec
from fsd_inference.engine.timeline import Timeline
from fsd_inference.errors import RunError
from fsd_inference.rank_report import RankReport
from fsd_inference.store.base import Store
from fsd_inference.stragglers import Pace
from fsd_inference.usage import Usage


@dataclass(slots=True)
class Backends:
    """The stores and the channel of one rank.

    Attributes
    ----------
    plans : Store
        Store of manifests and shards.
    runs : Store
        Store of inputs, claims, results and reports.
    channel : Channel
        Carries the frames between ranks.
    release : callable
        Closes all other resources opened for the rank.
    before : Usage
        Usage counted by the stores and the channel before this rank started.
    """

    plans: Store
    runs: Store
    channel: Channel
    release: Callable[[], None] = lambda: None
    before: Usage = field(default_factory=Usage)

    def close(self) -> None:
        """Close the channel, then the other resources."""
        self.channel.close()
        self.release()

    def count(self) -> Usage:
        """Return the usage of this rank so far."""
        meters = dict.fromkeys((self.plans.meter, self.runs.meter, self.channel.meter))
        return sum((meter.snapshot() for meter in meters), Usage()) - self.before


@dataclass(frozen=True, slots=True)
class RankEnd:
    """The outcome of a rank: its error (None if it succeeded), whether it noticed that itself, and its report."""

    error: RunError | None
    noticed: bool
    report: RankReport


def run_rank(
    *,
    spec: RunSpec,
    rank: int,
    starter: int | None,
    started: float,
    load: Callable[[Future[None]], RankWork],
    backends: Backends,
    launcher: Launcher,
    attached: Callable[[Driver], None] = lambda _: None,
    on_layer: Callable[[Pace], None] = lambda _: None,
    init_s: float = 0.0,
) -> RankEnd | None:
    """Run a rank to its end and write its report as the last object.

    Parameters
    ----------
    spec, rank
        The attempt and this rank.
    starter : int, optional
        The rank that started this one; None for rank 0.
    started : float
        When this process or handler started, seconds since the epoch.
    load, launcher
        As for `Driver`.
    backends : Backends
        Stores and channel; the caller closes them.
    attached : callable, optional
        Called with the driver before it runs, so that the caller can make it fail (for example if its parent is gone).
    on_layer : callable, optional
        As for `Driver`.
    init_s : float, optional
        Seconds of the init phase that started this process as a function, for the report.

    Returns
    -------
    RankEnd or None
        None if another process holds this rank's claim; the duplicate then does nothing.
    """
    store, count = backends.runs, backends.count
    with within(max(CLEANUP_S, spec.deadline - time.time())):  # who claims too late still reports why it failed
        if store.put_if_absent(spec.claim_key(rank), b"") is None:
            return None
    one_write = count()
    timeline = Timeline()
    driver = Driver(
        spec=spec,
        rank=rank,
        load=load,
        store=store,
        channel=backends.channel,
        launcher=launcher,
        timeline=timeline,
        count_requests=lambda: sum(count().requests.values()),
        on_layer=on_layer,
    )
    attached(driver)
    with within(_requests_s(spec, time.time())):
        outcome = driver.run()
        if rank == 0 and outcome.error is None and outcome.summary:
            store.put(spec.result_key(0), outcome.summary)
    report = rank_report(
        rank=rank,
        starter=starter,
        started=started,
        init_s=init_s,
        workers=spec.settings.workers,
        layers=driver.layers,
        intervals=timeline.intervals(),
        sent=driver.sent,
        sent_to=driver.sent_to,
        requests=driver.requests,
        result_bytes=len(outcome.summary) if rank == 0 and outcome.summary else driver.result_bytes,
        checkpoints=driver.checkpoints,
        error=outcome.error,
        position=None if outcome.error is None else driver.position,
        digests=driver.digests,
    )
    with within(CLEANUP_S if outcome.error else max(CLEANUP_S, spec.deadline - time.time())):
        report = _put_counted(store, spec.report_key(rank), report, count, one_write)
    return RankEnd(outcome.error, outcome.noticed, report)


def _requests_s(spec: RunSpec, now: float) -> float:
    """Return the seconds that the requests of an attempt have.

    An attempt that hands on must not fail because a request ends with it, and may still be storing a checkpoint.
    """
    return spec.deadline - now + (CLEANUP_S if spec.hands_on else 0.0)


def _put_counted(
    store: Store, key: str, report: RankReport, count: Callable[[], Usage], one_write: Usage
) -> RankReport:
    """Write a report whose usage includes its own write; write it again if that took more requests than predicted."""
    while True:
        before = count()
        predicted = before + one_write
        whole = replace(report, usage=predicted)
        store.put(key, json.dumps(whole.to_json()).encode())
        if count() == predicted:
            return whole
        one_write = count() - before
