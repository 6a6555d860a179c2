"""Sessions for tests, and how their answers are compared."""

from __future__ import annotations

from pathlib import Path

from numpy.typing import ArrayLike
from scipy import sparse

import fsd_inference as fsd


def session(network: fsd.Network | Path, channel: str, stack: Path | None = None, **more: object) -> fsd.Session:
    """A session over a channel; `stack` serves the channels that need one."""
    used = stack if channel in {"queue", "object"} else None
    return fsd.Session(network, channel=channel, stack=used, **more)  # type: ignore[arg-type]


def same(one: sparse.csr_array | None, other: sparse.csr_array | None) -> bool:
    """Whether two results are equal bit for bit."""
    assert one is not None
    assert other is not None
    return all(
        a.dtype == b.dtype and a.tobytes() == b.tobytes()
        for a, b in ((one.indptr, other.indptr), (one.indices, other.indices), (one.data, other.data))
    )


def serial(network: fsd.Network, x: ArrayLike | sparse.csr_array) -> sparse.csr_array:
    """The answer of this process alone."""
    with fsd.Session(network) as alone:
        outputs = alone.infer(x).outputs
    assert outputs is not None
    return outputs
