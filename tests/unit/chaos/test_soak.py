"""When a program that runs for long counts as flat."""

from __future__ import annotations

import pytest

from fsd_inference.chaos.processes import Resources
from fsd_inference.chaos.soak import Soak, Soaked

MB = 2**20


def soaked(memory: float = 0.0, descriptors: float = 0.0, threads: float = 0.0) -> Soaked:
    """Return a program that uses so much more at the end than at the beginning."""
    samples = [
        Resources(int((150 + memory * n / 100) * MB), int(40 + descriptors * n / 100), int(9 + threads * n / 100))
        for n in range(100)
    ]
    return Soaked("queue", 50, 0, samples)


@pytest.mark.parametrize("flat", [soaked(), soaked(memory=5), soaked(descriptors=2)])
def test_flat(flat: Soaked) -> None:
    assert flat.is_flat
    assert Soak((flat,), ()).is_good


@pytest.mark.parametrize("grown", [soaked(memory=40), soaked(descriptors=20), soaked(threads=20)])
def test_grown(grown: Soaked) -> None:
    assert not grown.is_flat
    assert not Soak((grown,), ()).is_good
    assert grown.row()[-1] == "no"


def test_what_else_is_not_good() -> None:
    good = soaked()
    assert not Soak((good,), ("3 messages in queues",)).is_good
    assert not Soak((Soaked("queue", 50, 1, good.samples),), ()).is_good
    assert not Soak((Soaked("queue", 0, 0, good.samples),), ()).is_good
    assert not Soak((Soaked("queue", 50, 0, good.samples, ended_well=False),), ()).is_good
