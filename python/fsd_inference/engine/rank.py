"""One rank from claim to report: what a composition root calls once it has a store, a channel and a launcher."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from fsd_inference.channels.base import Channel
from fsd_inference.engine.driver import Driver, RankWork
from fsd_inference.engine.launcher import Launcher
from fsd_inference.engine.reporting import rank_report
from fsd_inference.engine.spec import RunSpec
from fsd_inference.engine.timeline import Timeline
from fsd_inference.errors import RunError
from fsd_inference.rank_report import RankReport
from fsd_inference.store.base import Store
from fsd_inference.usage import Usage


@dataclass(slots=True)
class Backends:
    """What a rank works with: where shards are, where inputs, claims and results are, and what carries the frames.

    Attributes
    ----------
    plans, runs : Store
    channel : Channel
    release : callable
        Closes what was opened beside the channel.
    before : Usage
        What the stores and the channel had counted before this rank began.
    """

    plans: Store
    runs: Store
    channel: Channel
    release: Callable[[], None] = lambda: None
    before: Usage = field(default_factory=Usage)

    def close(self) -> None:
        """Close everything, the channel first."""
        self.channel.close()
        self.release()

    def count(self) -> Usage:
        """Return what this rank has been counted so far."""
        meters = dict.fromkeys((self.plans.meter, self.runs.meter, self.channel.meter))
        return sum((meter.snapshot() for meter in meters), Usage()) - self.before


@dataclass(frozen=True, slots=True)
class RankEnd:
    """How a rank ended: with an error or well, and what it reports of itself."""

    error: RunError | None
    report: RankReport


def run_rank(
    *,
    spec: RunSpec,
    rank: int,
    starter: int | None,
    started: float,
    load: Callable[[], RankWork],
    backends: Backends,
    launcher: Launcher,
    attached: Callable[[Driver], None] = lambda _: None,
    on_layer: Callable[[int], None] = lambda _: None,
) -> RankEnd | None:
    """Run a rank to its end and write its report as the last object.

    Parameters
    ----------
    spec, rank
        The attempt, and which part of it.
    starter : int, optional
        The rank that started this one; None for rank 0.
    started : float
        When this process or handler began, seconds since the epoch.
    load, launcher
        As for `Driver`.
    backends : Backends
        Stores and channel; the caller closes them.
    attached : callable, optional
        Called with the driver before it runs, so that the caller can make it fail (say, when its parent is gone).
    on_layer : callable, optional
        Called with the number of layers done.

    Returns
    -------
    RankEnd or None
        None if another process holds this rank's claim: the duplicate has done nothing.
    """
    store, count = backends.runs, backends.count
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
    outcome = driver.run()
    if rank == 0 and outcome.error is None and outcome.summary:
        store.put(spec.result_key(0), outcome.summary)
    report = rank_report(
        rank=rank,
        starter=starter,
        started=started,
        workers=spec.settings.workers,
        layers=driver.layers,
        intervals=timeline.intervals(),
        sent=driver.sent,
        sent_to=driver.sent_to,
        requests=driver.requests,
        result_bytes=len(outcome.summary) if rank == 0 and outcome.summary else driver.result_bytes,
        error=outcome.error,
    )
    return RankEnd(outcome.error, _put_counted(store, spec.report_key(rank), report, count, one_write))


def _put_counted(
    store: Store, key: str, report: RankReport, count: Callable[[], Usage], one_write: Usage
) -> RankReport:
    """Write a report whose counts include its own writing; where that took another number of requests, do it again."""
    while True:
        before = count()
        foreseen = before + one_write
        whole = replace(report, usage=foreseen)
        store.put(key, json.dumps(whole.to_json()).encode())
        if count() == foreseen:
            return whole
        one_write = count() - before
