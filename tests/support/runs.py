"""Sessions with flat settings for tests, and comparison of their outputs."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.engine.output_forms import Rows
from fsd_inference.session.distributed import Distributed
from fsd_inference.session.platforms import ProcessPlatform


def session(
    network: fsd.Network | Path, channel: str, stack: Path | None = None, *, delay_s: float = 0.0, **more: Any
) -> fsd.Session:
    """Return a session over a channel; settings of all groups are plain keyword arguments.

    `stack` is used by the channels that need one; `delay_s` is added to the latency of every frame between processes.
    """
    used = stack if channel in {"queue", "object"} else None
    groups: dict[str, Any] = {}
    for group, kind in (("tuning", fsd.Tuning), ("failures", fsd.FailurePolicy), ("functions", fsd.FunctionSettings)):
        given = {field.name: more.pop(field.name) for field in fields(kind) if field.name in more}
        groups[group] = kind(**given)
    made = fsd.Session(network, channel=channel, stack=used, **groups, **more)
    if delay_s:
        assert isinstance(made._engine, Distributed)
        assert isinstance(made._engine._platform, ProcessPlatform)
        made._engine._platform.delay_s = delay_s
    return made


def dense(outputs: Rows | None) -> NDArray[np.float32]:
    """Return outputs, which may be CSR, as an ndarray."""
    assert outputs is not None
    return outputs if isinstance(outputs, np.ndarray) else outputs.toarray()


def same(one: Rows | None, other: Rows | None) -> bool:
    """Return whether two outputs are equal bit for bit; also in their CSR structure if both are CSR."""
    if not (isinstance(one, sparse.csr_array) and isinstance(other, sparse.csr_array)):
        a, b = dense(one), dense(other)
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return all(
        a.dtype == b.dtype and a.tobytes() == b.tobytes()
        for a, b in ((one.indptr, other.indptr), (one.indices, other.indices), (one.data, other.data))
    )


def serial(network: fsd.Network, x: ArrayLike | sparse.csr_array) -> sparse.csr_array:
    """Return the outputs of serial inference in this process."""
    with fsd.Session(network) as alone:
        outputs = alone.infer(x, outputs="csr").outputs
    assert isinstance(outputs, sparse.csr_array)
    return outputs
