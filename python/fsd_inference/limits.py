"""Limits of AWS, sizes on the wire and pauses that several rooms rely on: each stands here once, with its source.

Limits are those of AWS's documentation in 2026-11 unless said.
"""

from __future__ import annotations

from typing import NamedTuple

# --- SNS and SQS ------------------------------------------------------------------------------------------------------

MESSAGE_BYTES = 256 * 1024
"""Largest message of an SNS topic, and largest batch, unless its MaximumMessageSize is raised."""
LARGEST_MESSAGE_BYTES = 1024 * 1024
"""To which it can be raised (SNS SetTopicAttributes)."""
LEAST_MESSAGE_BYTES = 2048
"""Ours: less would not hold a frame's header, its targets and some rows."""
BATCH_ENTRIES = 10
"""Messages of one PublishBatch, ReceiveMessage or DeleteMessageBatch (SNS and SQS API)."""
UNIT_BYTES = 64 * 1024
"""What SNS and SQS bill as one request (pricing pages)."""
TARGETS_ATTRIBUTE_BYTES = 1024
"""Of a message, kept free for the attribute `to`: enough to name RANKS_PER_TOPIC ranks."""
LONGEST_POLL_S = 2.0
"""Longest single receive of a rank, which notices a failure or a deadline after this time at most."""
RANKS_PER_TOPIC = 100
"""Ranks that share one SNS topic of a lane: within AWS's 200 filter policies a topic, and few enough that one `to`
attribute can name them all."""

# --- S3 ---------------------------------------------------------------------------------------------------------------

KEYS_A_REQUEST = 1000
"""Keys of one LIST answer, and of one DeleteObjects request (S3 API)."""
PUT_BYTES = 5 * 2**30
"""Largest object of one PUT (S3 API)."""
NEIGHBOUR_BYTES = 64 * 1024
"""Ranges of an object closer than this are read as one: a request costs more than the gap."""
HASH_FOLDERS = "0123456789abcdef"
"""First parts of the keys of frames, which spread them over a bucket's partitions."""
FIRST_READ_BYTES = 256 * 1024
"""Of an object of frames, asked for together with its index: what lies beyond is a second request."""
OBJECT_FRAME_BYTES = 16 << 20
"""Largest frame over `object`: it is held in memory while it is read."""
OBJECT_HEADER, OBJECT_ENTRY, OBJECT_TARGET = "<4sHHII", "<QI", "I"
"""Layout of the index of an object of frames, as `struct` has it: header, entry of a frame, target of a frame."""
ABORT_EVERY_S = 1.0
"""How often a rank that receives through objects looks for an abort."""

# --- Lambda -----------------------------------------------------------------------------------------------------------

MB_PER_VCPU = 1769
"""Memory with which a function has one processor ("Configure Lambda function memory")."""
LARGEST_FUNCTION_MB = 10_240
"""Memory of the largest function (quotas)."""
INVOCATION_S = 900.0
"""Longest invocation (quotas)."""
BILLED_TICK_S = 0.001
"""Durations are billed in milliseconds, rounded up (pricing page)."""
ACCOUNT_CONCURRENCY = 1000
"""Functions that an account may run at once unless it asked for more (quotas)."""
COORDINATOR_MB = 512
"""Memory of the coordinator function (terraform/variables.tf)."""
DEEPEST_TREE = 12
"""Levels of a launch tree: AWS stops chains of about 16 invocations of functions by functions, the coordinator's among
them (recursive loop detection), and some room is left."""

# --- polls of the coordinator and its client --------------------------------------------------------------------------


class Backoff(NamedTuple):
    """Pauses between polls: the first one in seconds, the factor by which each is longer, and the longest one."""

    first_s: float
    factor: float
    longest_s: float

    def after(self, pause_s: float) -> float:
        """Return the pause that follows one of `pause_s` seconds."""
        return min(self.factor * pause_s, self.longest_s)


STATUS_BACKOFF = Backoff(0.05, 1.15, 1.0)
"""Of the client, who reads the status: a small run is answered at once, a long one costs a request a second."""
REPORT_BACKOFF = Backoff(0.05, 1.5, 0.25)
"""Of the coordinator, who waits for rank 0's report."""
FAILURES_POLL_S = 1
"""How long the coordinator waits at the queue of failures each time."""
PROGRESS_S = 2.0
"""How often rank 0 writes the progress of a run, and the client reads it; and how often a coordinator reads which
failures of its run others have received."""

# --- threads of a rank ------------------------------------------------------------------------------------------------

STARTERS = 4
"""Requests in flight that start children, load the shard and check claims."""
SENDERS = 4
"""PublishBatch requests in flight over `queue`."""
WRITERS, READERS = 2, 8
"""PUTs and GETs in flight over `object`."""

# --- frames and summaries ---------------------------------------------------------------------------------------------

FRAME_HEADER_BYTES = 73
"""Of a frame, beside two for each target (rust_kernels/core/src/frame.rs)."""
CONTROL_BYTES = 128 * 1024
"""Largest piece of a summary on its way up the tree, below every channel's frame limit."""
SUMMARY_BYTES = 8
"""A sample's value and neuron in a summary."""
