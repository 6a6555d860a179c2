"""A small batch of inputs, and the check that a reader of inputs returned it in canonical form."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

BATCH = np.array([[0, 1, 0, 2.5], [0, 0, 0, 0], [3, 0, 0, -1]], np.float32)


def assert_is_batch(x: sparse.csr_array, expected: NDArray[Any]) -> None:
    assert isinstance(x, sparse.csr_array)
    assert x.dtype == np.float32
    assert x.indices.dtype == x.indptr.dtype == np.int32
    assert x.has_canonical_format
    assert x.nnz == np.count_nonzero(expected)
    np.testing.assert_array_equal(x.toarray(), expected)
