"""The Rust extension. Use it through `fsd_inference.kernels` only."""

from collections.abc import Sequence
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Accepted",
    "LayerKernel",
    "NonFiniteError",
    "RankState",
    "SerialState",
    "Shard",
    "ShardLayer",
    "decode_block",
    "encode_block",
    "seal",
    "simd_path",
    "simd_paths",
]

class NonFiniteError(ArithmeticError):
    """A pre-activation is not finite: args are (message, layer, local row)."""

def simd_path() -> Literal["portable", "avx2", "avx512"]:
    """Return the kernel path in use (FSD_KERNEL forces one; an unknown or unsupported one raises ValueError)."""

def simd_paths() -> list[str]:
    """Return the paths this processor can run."""

@final
class LayerKernel:
    """One layer's weights (rows x columns, CSR), bias and activation, validated; NumPy buffers are borrowed."""

    def __new__(
        cls,
        indptr: NDArray[np.int64],
        indices: NDArray[np.uint16] | NDArray[np.uint32],
        values: NDArray[np.float32],
        columns: int,
        bias: NDArray[np.float32],
        activation: Literal["identity", "relu", "clipped_relu"],
        clip: float,
        zero_preserving: bool,
    ) -> LayerKernel:
        """Check and take a layer.

        `indptr` has rows + 1 entries; column indices ascend strictly within a row and are < `columns`; `values` has
        one entry a connection, or exactly one entry in all: then every connection has that weight (a one-value layer).
        `bias` has `rows` entries or one. `clip` is used by "clipped_relu" alone. `zero_preserving` is a fact of the
        whole layer, so the caller says it. Arrays must be contiguous and not writeable; they are kept alive. Anything
        else is a ValueError.
        """

    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> int: ...
    @property
    def connections(self) -> int: ...

@final
class SerialState:
    """Activations of one batch, pushed through layers in this process."""

    def __new__(
        cls,
        indptr: NDArray[np.int64],
        indices: NDArray[np.int32],
        data: NDArray[np.float32],
        features: int,
        threads: int,
    ) -> SerialState:
        """Take a batch: CSR, samples x features. Non-finite values, bad indices or threads < 1 raise ValueError."""

    def apply(self, layers: Sequence[LayerKernel]) -> None:
        """Push the batch through consecutive layers. NonFiniteError counts layers from the first one ever applied."""

    def result(self) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
        """Return the activations as CSR arrays (indptr, indices, data), samples x neurons, without stored zeros."""

    def reduce(self) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Return per sample its largest activation and the lowest neuron that has it."""

@final
class ShardLayer:
    """One rank's part of a layer, with where its columns come from and who wants its rows.

    Suppliers: for layer 0 supplier 0 is the input (rows are features); for later layers supplier 0 is the rank's own
    output rows of the layer before, and supplier i >= 1 is receives[i-1].
    """

    def __new__(
        cls,
        kernel: LayerKernel,
        rows: NDArray[np.uint32],
        column_source: NDArray[np.uint32],
        column_row: NDArray[np.uint32],
        receives: Sequence[tuple[int, int, int]],
        sends: Sequence[tuple[Sequence[int], NDArray[np.uint32]]],
    ) -> ShardLayer:
        """Take a layer's part.

        Parameters: `rows` the global neuron of each local row, ascending; `column_source`, `column_row` per local
        column its supplier and the row within that supplier; `receives` (source rank, edge number, rows of the edge)
        per edge that this rank gets before this layer; `sends` (target ranks, local rows) per edge this rank sends
        after it, numbered from 0 in that order.
        """

@final
class Shard:
    """All that one rank needs of the network; immutable, kept warm between runs."""

    def __new__(cls, rank: int, workers: int, layers: Sequence[ShardLayer]) -> Shard: ...

@final
class Accepted:
    """What the inbox made of a body; what the header says is None where the body could not be read."""

    @property
    def status(self) -> Literal["new", "duplicate", "stale", "foreign", "corrupt"]: ...
    @property
    def kind(self) -> int | None: ...
    @property
    def layer(self) -> int | None: ...
    @property
    def micro_batch(self) -> int | None: ...
    @property
    def source(self) -> int | None: ...
    @property
    def edge(self) -> int | None: ...
    @property
    def complete(self) -> bool:
        """Whether all parts of the edge of this step, or of the control message, are there now.

        It is said once, of the last part.
        """
    @property
    def payload(self) -> bytes | None:
        """The payload of a control message (gather, abort) that is complete; data stays in Rust."""

@final
class RankState:
    """One rank's inbox and activations in one attempt of a run. All methods release the GIL and may run in threads.

    The steps of a micro-batch come in order, others in any: a step out of order is a RuntimeError; a step, input or
    frame that cannot be used is a ValueError. A data frame's layer is the layer that made its rows.
    """

    def __new__(
        cls,
        shard: Shard,
        run: bytes,
        attempt: int,
        plan: bytes,
        samples: Sequence[int],
        threads: int,
        spill_dir: str | None = None,
        spill_bytes: int = 1 << 62,
    ) -> RankState:
        """Begin an attempt. `run` and `plan` are 16 bytes; `samples` the number of samples of each micro-batch.

        Past `spill_bytes` packed frames are kept in files under `spill_dir`.
        """

    def put_input(self, micro_batch: int, first_feature: int, payload: bytes) -> None:
        """Take a block of input rows (features first_feature.. x samples of the micro-batch) made by encode_block."""

    def accept(self, body: bytes) -> Accepted:
        """Judge a body and keep it packed if it is new. Thread-safe, never raises for bad bytes."""

    def ready(self, layer: int, micro_batch: int) -> bool:
        """Whether every part of every edge of the step has come (rows of this rank's own layer before not counted)."""

    def assemble(self, layer: int, micro_batch: int) -> None:
        """Unpack the step's inputs into panels; the packed frames are released."""

    def compute(self, layer: int, micro_batch: int, phase: Literal["boundary", "interior", "all"]) -> None:
        """Compute the rows that others need, the other rows, or all; after the last phase the inputs are released."""

    def frames(self, layer: int, micro_batch: int, limit: int) -> list[tuple[list[int], bytes]]:
        """Pack the boundary rows into sealed frames of at most `limit` bytes each: (targets, body), in edge order."""

    def output(self, micro_batch: int) -> bytes:
        """Return the last layer's rows as a block (local rows x samples of the micro-batch) and release them."""

    def reduce(self, micro_batch: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Return per sample the largest output and the lowest (global) neuron that has it; -inf and -1 without rows."""

    def resident_bytes(self) -> int:
        """Return the bytes that panels and packed frames hold now."""

def seal(
    run: bytes,
    attempt: int,
    plan: bytes,
    source: int,
    kind: int,
    layer: int,
    targets: Sequence[int],
    part: int,
    parts: int,
    payload: bytes,
) -> bytes:
    """Make a control frame (gather, abort), piece `part` of `parts`."""

def encode_block(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], data: NDArray[np.float32], samples: int
) -> bytes:
    """Pack a CSR block (rows x samples), losslessly."""

def decode_block(payload: bytes) -> tuple[int, int, NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """Unpack a block: (rows, samples, indptr, indices, data) of its CSR. Bad bytes raise ValueError."""
