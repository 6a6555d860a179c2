"""Dense inputs in an .npy file."""

from __future__ import annotations

from pathlib import Path

from scipy import sparse

from fsd_inference.network.inputs import as_inputs
from fsd_inference.network.numpy_files import map_npy


def read_npy(file: Path, features: int | None) -> sparse.csr_array:
    """Read the inputs in an .npy file, which is memory-mapped and converted block by block."""
    return as_inputs(map_npy(file), features, what=str(file))
