"""The place of disturbed runs: an emulated stack behind a proxy that injects faults, and what runs leave on it."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from fsd_inference.aws.backends import open_buckets
from fsd_inference.aws.clients import Clients
from fsd_inference.aws.emulator import start_emulator, stop_emulator
from fsd_inference.aws.lanes import LaneTable, open_lanes
from fsd_inference.aws.local import bring_up
from fsd_inference.aws.provision import StackSettings
from fsd_inference.aws.stack import save_stack
from fsd_inference.chaos.client import PARTITION, network
from fsd_inference.chaos.functions import add_functions
from fsd_inference.chaos.processes import processes_of
from fsd_inference.chaos.proxy import FaultProxy
from fsd_inference.chaos.schedule import LARGEST_P
from fsd_inference.session import push
from fsd_inference.stack_description import StackSpec
from fsd_inference.store.base import Store
from fsd_inference.threads import ThreadPool
from fsd_inference.usage import UsageMeter

_KEPT = re.compile(r"lanes/.*|lane-clock|status/.*|runs/.*/(metrics|coordinator)")
"""Keys of objects that runs keep: leases, and on functions what `fsd runs` reads until it expires."""
_FRAME = re.compile(r"\w+/[0-9a-f]{32}/.*")
"""Keys of frames, which local processes delete at the end of a run, and functions leave to expire."""
_RUN = re.compile(r"\b[0-9a-f]{32}\b")
_READERS = 8


@dataclass(frozen=True, slots=True)
class Left:
    """What runs have left: descriptions, and the ids of the runs to which objects and held lanes belong."""

    what: tuple[str, ...] = ()
    runs: frozenset[str] = frozenset()


class Site:
    """An emulated stack of one lane, which each run finds as the one before has left it, behind a proxy for faults.

    Parameters
    ----------
    folder : Path
        Where to keep the descriptions of the stack.
    proxy : FaultProxy
        The proxy, which is running.
    on_functions : bool
        Whether the ranks are functions, whose requests pass the proxy too.

    Attributes
    ----------
    direct, disturbed : Path
        The stack.json without and with the proxy.
    """

    def __init__(self, folder: Path, proxy: FaultProxy, *, on_functions: bool) -> None:
        self.proxy = proxy
        self.direct = folder / "direct.json"
        self.disturbed = folder / "stack.json"
        self._on_functions = on_functions
        self._pushed: set[int] = set()
        self._stack = self._started()

    @property
    def emulator_pid(self) -> int:
        """Process id of the emulator."""
        assert self._stack.emulator is not None  # noqa: S101 - it was started for this stack
        return self._stack.emulator.pid

    def pause(self) -> None:
        """Stop the emulator, which then accepts connections and does not answer."""
        os.kill(self.emulator_pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let the emulator go on."""
        with suppress(ProcessLookupError):
            os.kill(self.emulator_pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill the emulator, with all that it holds."""
        os.kill(self.emulator_pid, signal.SIGKILL)

    def restart(self) -> None:
        """Start another emulator, with an empty stack, behind the same proxy."""
        self.close()
        self._stack = self._started()

    def close(self) -> None:
        """Stop the emulator."""
        assert self._stack.emulator is not None  # noqa: S101 - it was started for this stack
        self.go_on()
        stop_emulator(self._stack.emulator)

    def push(self, workers: int) -> None:
        """Push the network for some number of workers, if ranks are functions, which read what was pushed."""
        if self._on_functions and workers not in self._pushed:
            push(network(), stack=self.direct, workers=workers, partition=PARTITION)
            self._pushed.add(workers)

    def function(self, kind: str, number: int) -> int | None:
        """Return a process of the functions of a kind, "coordinator" or "worker"; None if there is none."""
        assert self._stack.functions is not None  # noqa: S101 - schedules on functions have a stack with functions
        functions = self._stack.functions
        arn = functions.coordinator if kind == "coordinator" else functions.workers[0].arn
        found = sorted(processes_of(arn.rpartition(":")[2]))
        return found[number % len(found)] if found else None

    def left(self) -> Left:
        """Return what runs have left: objects, lanes that are held, and messages."""
        with self._opened() as (clients, runs, table):
            keys = [info.key for store in runs for info in store.list("")]
            objects = [key for key in keys if not self._is_kept(key)]
            held = [lane for lane in table.look() if lane.state == "held"]
            with ThreadPool(_READERS) as threads:
                urls = [url for lane in self._stack.lanes for url in lane.queue_urls]
                messages = sum(threads.map(lambda url: _messages(clients, url), urls))
        what = [f"object {key}" for key in objects] + [f"lane {lane.lane} held by run {lane.run}" for lane in held]
        what += [f"{messages} messages in queues"] if messages else []
        ids = {found[0] for key in objects if (found := _RUN.search(key))} | {lane.run for lane in held}
        return Left(tuple(what), frozenset(ids))

    @contextmanager
    def _opened(self) -> Iterator[tuple[Clients, list[Store], LaneTable]]:
        clients = Clients.of_stack(self._stack)
        runs, plans = open_buckets(clients, self._stack, UsageMeter())
        try:
            yield clients, runs, open_lanes(runs[0], clients, self._stack, meter=UsageMeter())
        finally:
            for store in (*runs, plans):
                store.close()
            clients.close()

    def _is_kept(self, key: str) -> bool:
        if self._on_functions and not key.startswith("runs/") and _FRAME.fullmatch(key):
            return True
        return _KEPT.fullmatch(key) is not None

    def _started(self) -> StackSpec:
        emulator = start_emulator(tied=True)
        try:
            settings = StackSettings("fsd-chaos", ranks=LARGEST_P, purge_settle_s=0.0)
            stack = replace(bring_up(settings, endpoint_url=emulator.endpoint_url), emulator=emulator)
        except BaseException:
            stop_emulator(emulator)
            raise

        self.proxy.upstream = emulator.endpoint_url.removeprefix("http://")
        self._pushed.clear()
        disturbed = _moved(stack, self.proxy.url)
        if self._on_functions:
            clients = Clients.of_stack(disturbed)
            disturbed = add_functions(clients, disturbed)
            clients.close()
        stack = _moved(disturbed, emulator.endpoint_url)
        save_stack(stack, self.direct)
        save_stack(disturbed, self.disturbed)
        return stack


@contextmanager
def site(folder: Path, *, on_functions: bool) -> Iterator[Site]:
    """Have an emulated stack behind a proxy for the duration of a `with` block."""
    folder.mkdir()
    with FaultProxy("http://127.0.0.1:0") as proxy:
        made = Site(folder, proxy, on_functions=on_functions)
        try:
            yield made
        finally:
            made.close()


def _moved(stack: StackSpec, url: str) -> StackSpec:
    """Return a stack whose services are reached at another endpoint."""

    def moved(address: str) -> str:
        return url + urlsplit(address).path

    lanes = tuple(replace(lane, queue_urls=tuple(map(moved, lane.queue_urls))) for lane in stack.lanes)
    functions = stack.functions
    if functions is not None:
        functions = replace(functions, failures_queue_url=moved(functions.failures_queue_url))
    return replace(stack, endpoint_url=url, lanes=lanes, functions=functions)


def _messages(clients: Clients, url: str) -> int:
    """Return the number of messages in a queue, hidden ones included."""
    answer = clients.sqs.get_queue_attributes(
        QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    )
    return sum(int(count) for count in answer["Attributes"].values())
