"""The driver's order of work: what a checkpoint and a digest take is taken while the frames of the layer travel."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from fsd_inference.channels.base import Frame, Kind, Limits
from fsd_inference.config import RunSettings
from fsd_inference.engine.driver import Driver
from fsd_inference.engine.spec import RunSpec
from fsd_inference.engine.timeline import Timeline
from fsd_inference.partitioning.plan import RankPlan
from fsd_inference.store.memory import MemoryStore

LAYERS = 3
EVERYTHING = ("assemble", "boundary", "frames", "interior", "digest", "rows")


class Kernels:
    """Kernels that compute nothing, record what is asked of them, and give no rows before their frames are sent."""

    def __init__(self, sent: list[Event]) -> None:
        self._sent = sent
        self.calls: list[tuple[str, int]] = []

    def assemble(self, layer: int, _: int) -> None:
        self.calls.append(("assemble", layer))

    def compute(self, layer: int, _: int, phase: str) -> None:
        self.calls.append((phase, layer))

    def frames(self, layer: int, *_: object) -> list[tuple[list[int], bytes]]:
        self.calls.append(("frames", layer))
        return [([0], b"frame")]

    def digest(self, layer: int, *_: object) -> int:
        assert layer == LAYERS - 1 or self._sent[layer].wait(10), "the frames were held back"
        self.calls.append(("digest", layer))
        return 2**64 - 1

    def rows(self, layer: int, *_: object) -> bytes:
        assert self._sent[layer].wait(10), "the frames were held back"
        self.calls.append(("rows", layer))
        return b"rows"

    def output(self, _: int) -> bytes:
        return b"output"


class Work:
    """A shard of rank 1 of 2, which needs no rows of rank 0."""

    def __init__(self, kernels: Any, digests: Sequence[int]) -> None:
        to_rank_0 = ((0,),)
        self.plan = RankPlan(1, 2, ((),) * LAYERS, (to_rank_0, to_rank_0, ()), (1, 1, 0), (1, 1, 2))
        self.state = kernels
        self.digests = digests

    def load(self) -> Iterator[int]:
        yield LAYERS

    def neuron(self, layer: int, row: int) -> int:
        raise AssertionError((layer, row))

    def connections(self, layer: int) -> int:
        raise AssertionError(layer)


def drive(
    *, overlap: bool = True, resume_at: int = 0, digests: Sequence[int] = ()
) -> tuple[Kernels, MemoryStore, Driver]:
    """Carry out an attempt, of which nothing may fail."""
    sent = [Event() for _ in range(LAYERS)]
    kernels, store, done = Kernels(sent), MemoryStore(), Future[None]()
    done.set_result(None)

    def send(frames: Sequence[Frame]) -> Future[None]:
        if frames[0].kind is Kind.DATA:
            sent[frames[0].layer].set()
        return done

    channel = SimpleNamespace(limits=Limits(100, 1, 100), send=send, receive=lambda *_: [], abort=lambda _: None)
    settings = RunSettings(workers=2, micro_batches=1, overlap=overlap, verify=True, checkpoint_every=1)
    spec = RunSpec("5" * 32, 0, "6" * 32, 4, 40, time.time() + 900, settings, resume_at=resume_at)
    nothing: Any = None
    driver = Driver(
        spec=spec,
        rank=1,
        load=lambda _: Work(kernels, digests),
        store=store,
        channel=channel,  # type: ignore[arg-type]
        launcher=nothing,
        timeline=Timeline(),
        count_requests=lambda: 0,
        on_layer=lambda _: None,
    )
    assert driver.run().error is None
    return kernels, store, driver


@pytest.mark.parametrize("overlap", [True, False])
def test_frames_travel_while_interior_rows_digests_and_checkpoints_are_made(*, overlap: bool) -> None:
    kernels, store, driver = drive(overlap=overlap)
    whole = [name for name in EVERYTHING if name != "interior"]
    for layer in range(LAYERS - 1):
        expected = EVERYTHING if overlap else ["all" if name == "boundary" else name for name in whole]
        assert [name for name, of in kernels.calls if of == layer] == list(expected)
    assert [name for name, of in kernels.calls if of == LAYERS - 1] == ["assemble", "all", "digest"]
    assert len(list(store.list(driver.spec.checkpoints_prefix))) == LAYERS - 1
    assert driver.digests == [2**64 - 1] * LAYERS


def test_rows_of_a_checkpoint_are_only_sent() -> None:
    kernels, store, driver = drive(resume_at=1, digests=(5,))
    assert [name for name, of in kernels.calls if of == 0] == ["frames"]
    assert [name for name, of in kernels.calls if of == 1] == list(EVERYTHING)
    assert [info.key for info in store.list(driver.spec.checkpoints_prefix)] == [driver.spec.checkpoint_key(2, 1)]
    assert driver.digests == [5, 2**64 - 1, 2**64 - 1]
    assert len(driver.requests) == LAYERS + 1
