"""Inputs in the Graph Challenge's format: lines of sample, feature and value, counted from 1."""

from __future__ import annotations

from pathlib import Path

from scipy import sparse

from fsd_inference.network.checks import MAX_WIDTH
from fsd_inference.network.inputs import check_samples, inputs_from_csr
from fsd_inference.network.tsv import Entries


def read_graph_challenge(file: Path, features: int | None) -> sparse.csr_array:
    """Read the inputs in a file of the Graph Challenge, plain or gzip.

    Raises
    ------
    FileFormatError
        If a line is invalid; the message names it.
    """
    limits = (MAX_WIDTH, MAX_WIDTH if features is None else features)
    entries = Entries(file, ("sample", "feature", "value"), limits)
    shape = (int(entries.first.max()) + 1, int(entries.second.max()) + 1 if features is None else features)
    check_samples(shape[0], entries.values.size, str(file))
    return inputs_from_csr(entries.to_csr(shape), str(file))
