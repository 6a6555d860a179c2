"""The project's shared data, which clones do not contain: tests that need it are skipped with a message."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

ROOT = Path(os.environ.get("FSD_SHARED", Path(__file__).parents[3] / "shared"))


def shared(name: str) -> Path:
    """Return the path of a shared file; skip the test if it is missing."""
    path = ROOT / name
    if not path.exists():
        pytest.skip(f"../shared is not beside the clone: {name} is missing")
    return path


def graph_challenge_inputs(neurons: int, samples: int | None = None) -> sparse.csr_array:
    """Return the Graph Challenge's inputs, samples x features: all, or the first `samples`."""
    with np.load(shared(f"graphchallenge/inputs_{neurons}.npz")) as archive:
        bits = np.unpackbits(archive["bits"][:samples], axis=1)[:, :neurons]
    return sparse.csr_array(bits.astype(np.float32))
