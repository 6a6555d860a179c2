"""The Rust extension; import its names from `fsd_inference.kernels` and `fsd_inference.services` only."""

from collections.abc import Callable, Sequence
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Accepted",
    "LayerKernel",
    "NoAnswerError",
    "NonFiniteError",
    "QueueClient",
    "RankState",
    "RefusedError",
    "SerialState",
    "ServiceEndpoint",
    "Shard",
    "ShardLayer",
    "TopicClient",
    "WireRangeError",
    "activate",
    "block_shape",
    "decode_block",
    "encode_block",
    "round_to_wire",
    "seal",
    "simd_path",
    "simd_paths",
]

class NonFiniteError(ArithmeticError):
    """A neuron is not finite, before or after its activation; its args are (message, layer, local row)."""

class WireRangeError(ArithmeticError):
    """A value does not fit the number format in which it is sent; its args are (message, layer, local row)."""

def simd_path() -> Literal["portable", "avx2", "avx512", "neon"]:
    """Return the kernel path in use; FSD_KERNEL forces one, and an unknown or unsupported one raises ValueError."""

def simd_paths() -> list[str]:
    """Return the names of the kernel paths that this processor supports."""

def activate(
    kind: str, parameters: Sequence[float], values: NDArray[np.float32], slope: float = 0.0, path: str | None = None
) -> NDArray[np.float32]:
    """Return the activations of 1-D pre-activations on a kernel path, by default the one in use.

    `slope` is used by "prelu" only. An unknown kind, wrong parameters or an unsupported path raise ValueError.
    """

@final
class LayerKernel:
    """One layer's weights (rows x columns, CSR), bias and activations, validated; NumPy buffers are borrowed."""

    def __new__(
        cls,
        indptr: NDArray[np.int64],
        indices: NDArray[np.uint16] | NDArray[np.uint32],
        values: NDArray[np.float32],
        columns: int,
        bias: NDArray[np.float32],
        groups: Sequence[tuple[int, str, str, Sequence[float]]],
        slopes: NDArray[np.float32],
        zero_preserving: bool,
    ) -> LayerKernel:
        """Validate and borrow a layer.

        `indptr` has rows + 1 entries; column indices ascend strictly within a row and are < `columns`; `values` has
        one entry per connection, or a single entry that is the weight of every connection (a one-value layer).
        `bias` has `rows` entries or one. `groups` are, in order of rows, the number of rows, "sum" or "max", and kind
        and parameters of the activation; `slopes` has `rows` entries if any kind is "prelu", otherwise none.
        `zero_preserving` says whether the whole layer maps an all-zero sample to an all-zero sample, which its part
        alone does not show. Arrays must be contiguous and not writeable, and are kept alive. Invalid arguments raise
        ValueError.
        """

    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> int: ...
    @property
    def connections(self) -> int: ...

@final
class SerialState:
    """The activations of one batch, to which layers are applied in this process."""

    def __new__(
        cls,
        indptr: NDArray[np.int64],
        indices: NDArray[np.int32],
        data: NDArray[np.float32],
        features: int,
        threads: int,
    ) -> SerialState:
        """Load a CSR batch, samples x features. Non-finite values, bad indices or threads < 1 raise ValueError."""

    @staticmethod
    def from_dense(x: NDArray[np.float32], threads: int) -> SerialState:
        """Load a dense batch, samples x features, in C or Fortran order.

        The array is borrowed until layers have been applied; it must be aligned and not writeable. Non-finite values
        or threads < 1 raise ValueError.
        """

    @staticmethod
    def from_blocks(
        samples: int,
        neurons: int,
        parts: Sequence[tuple[bytes | memoryview, int, int, NDArray[np.uint32]]],
        threads: int,
    ) -> SerialState:
        """Load a batch, samples x neurons, from blocks of some neurons each; others are 0.

        A part is (block that stands alone, first sample, end of the samples, neurons of its rows). Parts of the same
        samples have different neurons, and others have no sample in common. Blocks that are damaged or of another shape
        raise ValueError.
        """

    @property
    def samples(self) -> int: ...
    @property
    def neurons(self) -> int:
        """The number of activations of a sample."""

    def keep_digests(self, first_sample: int) -> None:
        """Have digests taken of the batch, and of all layers; ValueError if one was applied already.

        The first sample has the number `first_sample` in the batch of which this one may be a slice.
        """

    def digests(self) -> list[int]:
        """Return the digests of the batch and of each layer that was applied; none if they are not kept."""

    def apply(self, layers: Sequence[LayerKernel]) -> None:
        """Apply consecutive layers to the batch. NonFiniteError counts layers from the first one ever applied."""

    def result(self) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
        """Return the activations as CSR arrays (indptr, indices, data), samples x neurons, without stored zeros."""

    def non_zeros(self) -> int:
        """Return the number of activations that are not zero."""

    def write(self, out: NDArray[np.float32]) -> None:
        """Write the activations to a C-contiguous array, samples x neurons; another shape raises ValueError."""

    def blocks(self, first: int, end: int, count: int) -> list[bytes]:
        """Return the activations of samples `first` to `end` - 1 as blocks (neurons x samples) of `count` neurons each.

        Samples that are not there, or a `count` of 0, raise ValueError.
        """

    def reduce(self) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Return, for each sample, its largest activation and the lowest neuron that has it."""

@final
class ShardLayer:
    """One rank's part of a layer, with the sources of its columns and the targets of its rows.

    A column is a row of a supplier. Supplier 0 is the input for layer 0 (its rows are features), and the rank's own
    output rows of the previous layer for later layers; supplier i >= 1 is receives[i-1].
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
        """Validate and borrow a rank's part of a layer.

        `rows` is the global neuron of each local row, ascending. `column_source` and `column_row` are, for each local
        column, its supplier and the row within that supplier. `receives` has (source rank, edge number, number of
        rows) for each edge that this rank receives before this layer. `sends` has (target ranks, local rows) for each
        edge that this rank sends after it; edges are numbered from 0 in that order.
        """

@final
class Shard:
    """One rank's part of the network, to which layers are added in order; cached between runs."""

    def __new__(cls, rank: int, workers: int, receives: Sequence[Sequence[tuple[int, int, int]]]) -> Shard:
        """Create a shard without layers; `receives` is that of each layer's `ShardLayer`. May raise ValueError."""

    def add(self, index: int, layer: ShardLayer) -> None:
        """Add layer `index`, the next one; runs may compute the earlier ones meanwhile. May raise ValueError."""

    def neuron(self, layer: int, row: int) -> int:
        """Return the global neuron of a local row of a layer that was added."""

@final
class Accepted:
    """The inbox's classification of a body; header fields are None if the body could not be parsed."""

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
        """Whether this body was the last missing part of its edge in the step, or of its control message."""
    @property
    def payload(self) -> bytes | None:
        """The payload of a control message (gather or abort) that is now complete; data stays in Rust."""

@final
class RankState:
    """One rank's inbox and activations in one attempt of a run. All methods release the GIL and are thread-safe.

    The steps of each micro-batch must follow in order; a step out of order raises RuntimeError, and an invalid step,
    input or frame raises ValueError. A data frame's layer is the layer that produced its rows.
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
        wire: str = "float32",
    ) -> RankState:
        """Start an attempt. `run` and `plan` have 16 bytes; `samples` is the number of samples in each micro-batch.

        Received frames beyond `spill_bytes` bytes are stored in files under `spill_dir`. The rows in `frames` are
        rounded to the number format `wire`: "float32" (as computed), "bfloat16" or "float16".
        """

    def put_input(self, micro_batch: int, first_feature: int, payload: bytes) -> None:
        """Add input rows: features from `first_feature` x samples of the micro-batch, encoded by encode_block."""

    def accept(self, body: bytes | memoryview) -> Accepted:
        """Classify a body and keep it if it is new. Thread-safe; never raises, whatever the bytes.

        A view must be contiguous and read-only, and its memory must not change.
        """

    def ready(self, layer: int, micro_batch: int) -> bool:
        """Return whether all rows that the step needs from other ranks have arrived."""

    def assemble(self, layer: int, micro_batch: int) -> None:
        """Unpack the step's inputs into panels, and release the stored frames."""

    def compute(self, layer: int, micro_batch: int, phase: Literal["boundary", "interior", "all"]) -> None:
        """Compute the rows that other ranks need, the rest, or all; release the inputs once all rows are computed."""

    def digest(self, layer: int, micro_batch: int, first_sample: int) -> int:
        """Return the digest of this rank's rows of a layer, once all are computed and before the next step.

        `first_sample` is the number of the micro-batch's first sample in the batch.
        """

    def frames(self, layer: int, micro_batch: int, limit: int, fast: bool = False) -> list[tuple[list[int], bytes]]:
        """Pack the boundary rows into sealed frames of at most `limit` bytes each: (targets, body), in edge order.

        If `fast`, bytes are only saved where that takes next to no time. A value that would become infinite in the
        number format raises WireRangeError.
        """

    def rows(self, layer: int, micro_batch: int, fast: bool = False) -> bytes:
        """Pack this rank's rows of a layer into one sealed frame, once all are computed and before the next step.

        They are float32 whatever the number format of `frames`. `fast` is as for `frames`.
        """

    def restore(self, layer: int, micro_batch: int, body: bytes) -> None:
        """Put rows back that `rows` returned in this attempt or an earlier one of the run, in place of the input.

        The micro-batch goes on after their layer, whose `frames` and `digest` are then as if it had been computed. A
        body that is damaged, or of something else, raises ValueError.
        """

    def output(self, micro_batch: int) -> bytes:
        """Return the last layer's rows as a block (local rows x samples of the micro-batch), and release them."""

    def reduce(self, micro_batch: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Return each sample's largest output and the lowest global neuron that has it; -inf and -1 without rows."""

    def resident_bytes(self) -> int:
        """Return the bytes that panels and stored frames currently hold."""

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
    """Build a control frame (gather or abort) that carries part `part` of `parts`."""

def encode_block(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.float32],
    samples: int,
    known: list[tuple[int, NDArray[np.uint32]]] | None = None,
) -> bytes:
    """Encode a CSR matrix (rows x samples) as a block, losslessly.

    The block stands alone, or with `known`, numbered lists of samples that all receivers have, is one of a frame.
    """

def round_to_wire(values: NDArray[np.float32], wire: str) -> NDArray[np.float32]:
    """Return values rounded to a number format as those that ranks send; the format must hold them."""

def block_shape(payload: bytes) -> tuple[int, int]:
    """Return the numbers of rows and samples that a block that stands alone claims to have, before it is decoded.

    A block that is cut off raises ValueError.
    """

def decode_block(payload: bytes) -> tuple[int, int, NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """Decode a block into (rows, samples, indptr, indices, data) in CSR format.

    An invalid block raises ValueError, one that takes more memory than there is MemoryError.
    """

class RefusedError(Exception):
    """A service answered with an error; the args are (text, HTTP status, error code)."""

class NoAnswerError(Exception):
    """A request got no complete answer, so that it may be sent again; the args are (text,)."""

@final
class ServiceEndpoint:
    """Where a service is, how to reach it, and the access keys that sign requests to it."""

    def __new__(
        cls,
        url: str,
        region: str,
        keys: Callable[[], tuple[str, str, str | None]],
        *,
        proxy: str | None,
        certificates: bytes,
        connections: int,
        connect_timeout_s: float,
        answer_timeout_s: float,
    ) -> ServiceEndpoint:
        """Describe an endpoint, ``http://HOST[:PORT]`` or ``https://HOST[:PORT]``.

        `keys` returns the id, secret and session token for the next request. `certificates` (PEM) are trusted in
        addition to the system's; `connections` idle ones are kept. `answer_timeout_s` is the longest wait for the next
        bytes of an answer. An invalid proxy, certificate or timeout raises ValueError.
        """

@final
class TopicClient:
    """A client of SNS topics; safe to share between threads.

    Its methods send one request, and raise RefusedError, NoAnswerError, or whatever the endpoint's `keys` raises.
    """

    def __new__(cls, endpoint: ServiceEndpoint) -> TopicClient:
        """Make a client, which connects with its first request."""

    def publish(self, topic: str, messages: Sequence[tuple[str, bytes, str]]) -> list[tuple[str, str, str, bool]]:
        """Publish a batch to the topic with ARN `topic`, and return its entries that failed.

        A message is (id of its entry, body, JSON array of strings for the attribute ``to``). The body is sent in
        URL-safe base64 without padding. A failed entry is (id, error code, message, whether the sender is at fault).
        """

@final
class QueueClient:
    """A client of SQS queues; see `TopicClient`."""

    def __new__(cls, endpoint: ServiceEndpoint) -> QueueClient:
        """Make a client, which connects with its first request."""

    def receive(self, queue_url: str, count: int, wait_s: int) -> tuple[list[bytes], int, list[str]]:
        """Receive up to `count` messages, waiting up to `wait_s` seconds for the first.

        Returns the bodies, their total size as text, and the receipts that delete the messages. A body that is not
        base64 is returned as it is.
        """

    def delete(self, queue_url: str, receipts: Sequence[tuple[str, str]]) -> list[tuple[str, str, str, bool]]:
        """Delete messages by (id of the entry, receipt), and return the entries that failed, as `publish` does."""
