"""Processor time of requests, at the callers and at the emulated service: ``make bench BENCH=services``.

Several callers send requests at a time, each from its own thread, through the channels and stores that ranks use. The
processor times are those of this process and of the emulator's process. They are the source of the values ``cpu.*`` of
requests in both timing sets.
"""

from __future__ import annotations

import argparse
import os
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fsd_inference.aws.backends import open_channel
from fsd_inference.aws.clients import Clients
from fsd_inference.aws.local import temporary_stack
from fsd_inference.aws.provision import StackSettings
from fsd_inference.channels.base import Expected, Frame, Kind
from fsd_inference.config import RunSettings
from fsd_inference.engine.spec import RunSpec
from fsd_inference.stack_description import StackSpec
from fsd_inference.store.base import Store
from fsd_inference.usage import UsageMeter

CALLERS = 8
_BODY, _LARGE = os.urandom(1_000), os.urandom(25_000)
_WANTED = (Expected(Kind.DATA, 0, 0, 0),)
_LOOKS_A_SECOND = 10  # how often the emulator checks the queue of a waiting request
_WAIT_S = 2.0
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def processor_s(pid: int) -> float:
    """Return the CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND


class Measured:
    """A table of CPU times by kind of request.

    Parameters
    ----------
    emulator : int
        Process id of the emulator.
    """

    def __init__(self, emulator: int) -> None:
        self._emulator = emulator
        self.table = Table("request", "caller, ms", "emulator, ms")

    def add(self, what: str, calls: int, ask: Callable[[int], object], *, requests: int = 1) -> None:
        """Add a row: each caller calls ``ask(caller)`` `calls` times; each call sends `requests` requests."""

        def ask_all(caller: int) -> None:
            for _ in range(calls):
                ask(caller)

        with ThreadPoolExecutor(CALLERS) as callers:
            list(callers.map(ask, range(CALLERS)))
            before = time.process_time(), processor_s(self._emulator)
            list(callers.map(ask_all, range(CALLERS)))
            after = time.process_time(), processor_s(self._emulator)
        means = [
            (later - earlier) / (calls * CALLERS * requests) * 1e3
            for earlier, later in zip(before, after, strict=True)
        ]  # fmt: skip
        self.table.add_row(what, *(f"{mean:.3f}" for mean in means))


def measure_objects(measured: Measured, stack: StackSpec, count: int) -> None:
    """Measure requests that write and read objects."""
    clients = Clients.of_stack(stack)
    bucket = clients.open_bucket(stack.run_buckets[0], meter=UsageMeter())
    for body, said in ((_BODY, "1 KB"), (10 * _LARGE, "0.25 MB")):
        measured.add(f"PUT of {said}", count, partial(_put, bucket, body))
        measured.add(f"GET of {said}", count, lambda caller: bucket.get(f"{caller}"))
    measured.add("GET of what is not there", count, lambda caller: bucket.get(f"none-{caller}"))
    bucket.close()
    clients.close()


def _put(bucket: Store, body: bytes, caller: int) -> None:
    bucket.put(f"{caller}", body)


def measure_queues(measured: Measured, stack: StackSpec, count: int) -> None:
    """Measure requests that publish and receive messages."""
    spec = RunSpec(uuid.uuid4().hex, 0, uuid.uuid4().hex, 1, 1, 0.0, RunSettings(workers=CALLERS))
    clients = [Clients.of_stack(stack) for _ in range(CALLERS)]
    channels = [
        open_channel(mine, stack, (), "queue", spec=spec, rank=rank, lane=0) for rank, mine in enumerate(clients)
    ]

    def send(body: bytes, targets: int, caller: int) -> None:
        others = [rank for rank in range(CALLERS) if rank != caller][:targets]
        channels[caller].send([Frame(Kind.DATA, 0, 0, (rank,), body) for rank in others]).result()

    def receive(caller: int) -> None:
        channels[caller].receive(_WANTED, _WAIT_S)

    looks = round(_LOOKS_A_SECOND * _WAIT_S)
    measured.add("look at an empty queue", 2, receive, requests=looks)
    for body, said in ((_LARGE, "33 KB as text"), (_BODY, "1 KB")):
        measured.add(f"publish 1 of {said}", count, partial(send, body, 1))
        purge(clients[0], stack)
        measured.add(f"publish 7 of {said}", count, partial(send, body, 7))
        measured.add(f"receive 10 of {said}", count // 2, receive)
    for channel in channels:
        while channel.receive(_WANTED, 0.0):  # drain the queue
            pass
    measured.add(f"look at a queue with {7 * (count + 1)} hidden messages", 2, receive, requests=looks)
    for channel, mine in zip(channels, clients, strict=True):
        channel.close()
        mine.close()


def purge(clients: Clients, stack: StackSpec) -> None:
    """Empty all queues."""
    for url in stack.lanes[0].queue_urls:
        clients.sqs.purge_queue(QueueUrl=url)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=40, help="requests of each kind and caller")
    count = parser.parse_args().requests
    with temporary_stack(StackSettings("fsd-bench", ranks=CALLERS, purge_settle_s=0.0)) as stack:
        assert stack.emulator is not None
        measured = Measured(stack.emulator.pid)
        measure_objects(measured, stack, 5 * count)
        measure_queues(measured, stack, count)
        Console(emoji=False).print(measured.table)


if __name__ == "__main__":
    main()
