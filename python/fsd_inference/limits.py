"""Constants that several packages share: limits of AWS services, sizes of messages, and numbers of threads.

AWS limits are those of its documentation in 2026-11 unless stated otherwise; the source is in parentheses.
"""

from __future__ import annotations

from typing import NamedTuple

# --- SNS and SQS ------------------------------------------------------------------------------------------------------

MESSAGE_BYTES = 256 * 1024
"""Default maximum size of an SNS message, and of a batch, in bytes (MaximumMessageSize of the topic)."""
LARGEST_MESSAGE_BYTES = 1024 * 1024
"""Highest value of MaximumMessageSize of a topic and of a queue, in bytes (SNS SetTopicAttributes, SQS CreateQueue). A
topic above 256 KiB may have 100 subscriptions, all to SQS, Lambda or Firehose (SNS, "Publishing large messages")."""
LEAST_MESSAGE_BYTES = 2048
"""Lowest maximum message size that we accept, in bytes: it must hold a frame's header, its targets and some rows."""
BATCH_ENTRIES = 10
"""Maximum number of messages of one PublishBatch, ReceiveMessage or DeleteMessageBatch (SNS and SQS API)."""
UNIT_BYTES = 64 * 1024
"""Payload in bytes that SNS and SQS bill as one request (pricing pages)."""
TARGETS_ATTRIBUTE_BYTES = 1024
"""Bytes of a message that are reserved for its attribute `to`: enough to name RANKS_PER_TOPIC ranks."""
PUBLISH_QUOTAS = {
    "us-east-1": 30_000,
    **dict.fromkeys(("us-west-2", "eu-west-1"), 9_000),
    **dict.fromkeys(("us-east-2", "us-west-1", "ap-south-1", "ap-northeast-1", "ap-northeast-2"), 1_500),
    **dict.fromkeys(("ap-southeast-1", "ap-southeast-2", "eu-central-1"), 1_500),
}
"""Default quota of the messages that an account may publish to SNS in a region, in messages a second; those of a batch
count one by one, and all topics together ("Amazon SNS endpoints and quotas", Publish API throttling per account)."""
LEAST_PUBLISH_QUOTA = 300
"""The same quota in all other regions."""
PUBLISH_BURST_S = 1.0
"""Messages that may be published at once beyond the rate, as seconds of it; AWS documents none (2026-11)."""
LONGEST_POLL_S = 2.0
"""Maximum duration in seconds of one receive call of a rank, which notices failures and deadlines in between."""
RANKS_PER_TOPIC = 100
"""Number of ranks that share one SNS topic of a lane: the subscriptions that a topic of large messages may have, fewer
than the 200 filter policies that AWS allows a topic, and few enough that one `to` attribute can name them all."""

HIDDEN_MESSAGES = 50_000
"""Number of received messages that one run, and again all earlier ones together, may leave undeleted in a queue. Beyond
about 120,000 long polls find nothing and report no error ("Amazon SQS standard queue quotas")."""
MESSAGE_MARGIN_S = 300
"""Seconds by which a queue keeps and hides messages longer than the stack's longest run takes."""
LANE_WAIT_S = 120.0
"""Longest wait of an attempt for a free lane, in seconds: twice the time that the purge of its queues may take."""

LEASE_S = 30.0
"""Seconds after which the lease of a lane ends if its holder, a client with local ranks, does not renew it."""
RENEW_S = 10.0
"""Interval in seconds at which such a client renews its lease."""


def publish_quota(region: str) -> int:
    """Return an account's default quota of messages published to SNS in a region, in messages a second."""
    return PUBLISH_QUOTAS.get(region, LEAST_PUBLISH_QUOTA)


# --- S3 ---------------------------------------------------------------------------------------------------------------

KEYS_A_REQUEST = 1000
"""Maximum number of keys in one LIST response or one DeleteObjects request (S3 API)."""
PUT_BYTES = 5 * 2**30
"""Maximum size of an object in one PUT, in bytes (S3 API)."""
PART_BYTES = 16 * 2**20
"""Size in bytes of the parts in which larger files are uploaded; after an interruption, those under way are sent again.
S3 takes 5 MiB to 5 GiB (S3 user guide, multipart upload limits)."""
DIRECTORY_BUCKET = "--x-s3"
"""How names of directory buckets (S3 Express One Zone) end (S3 user guide, directory bucket naming rules)."""
NEIGHBOUR_BYTES = 64 * 1024
"""Byte ranges of an object with a smaller gap are read in one request, which is cheaper than two."""
HASH_FOLDERS = "0123456789abcdef"
"""Key prefixes of frames, chosen by a hash to spread requests over a bucket's partitions."""
FIRST_READ_BYTES = 256 * 1024
"""Size in bytes of the first read of an object of frames, which includes its index; the rest takes further requests."""
OBJECT_FRAME_BYTES = 16 << 20
"""Maximum size in bytes of a frame of the `object` channel, which is held in memory while it is read."""
OBJECT_HEADER, OBJECT_ENTRY, OBJECT_TARGET = "<4sHHII", "<QI", "I"
"""Format strings for `struct` of the index of an object of frames: its header, the entry of a frame, a target."""
ABORT_EVERY_S = 1.0
"""Interval in seconds at which a rank that receives through objects polls for an abort."""

# --- Lambda -----------------------------------------------------------------------------------------------------------

MB_PER_VCPU = 1769
"""Memory in MB for which Lambda gives a function one vCPU ("Configure Lambda function memory")."""
LARGEST_FUNCTION_MB = 10_240
"""Maximum memory of a function in MB (quotas)."""
INVOCATION_S = 1800.0
"""Maximum timeout of an invocation in seconds (Lambda API, CreateFunction, in botocore 1.44.8 of 2026-11-20; pages of
the developer guide still say 900)."""
DEFAULT_INVOCATION_S = 900.0
"""Timeout of a stack's functions in seconds unless it is set (terraform/variables.tf)."""
LARGEST_MANAGED_MB, LARGEST_MANAGED_VCPUS = 32_768, 16
"""Maximum memory in MB and vCPUs of a function on Lambda Managed Instances (Lambda API, CreateFunction, in botocore
1.44.8; vCPUs: AWS compute blog, 2026-03-30)."""
MANAGED_INVOCATION_S = 5400.0
"""Maximum timeout in seconds of an asynchronous invocation on Managed Instances (Lambda quotas)."""
MANAGED_ENVIRONMENTS = 3
"""Execution environments, each on an instance of its own, that a function on Managed Instances has by default however
few invocations there are, for three availability zones (developer guide, "Scaling Lambda Managed Instances")."""
MANAGED_FEE = 0.15
"""What Managed Instances cost beyond EC2's price on demand, as a share of it (Lambda pricing page, as a third party
transcribed it on 2026-09-20)."""
BILLED_TICK_S = 0.001
"""Resolution of billed durations in seconds, rounded up (pricing page)."""
ACCOUNT_CONCURRENCY = 1000
"""Default concurrency quota of an account: invocations that run at the same time (quotas)."""
COORDINATOR_END_S = 20.0
"""Seconds before its timeout by which the ranks of a coordinator must have ended: time to write metrics and status."""
COORDINATOR_MB = 512
"""Default memory of the coordinator function in MB (terraform/variables.tf)."""
WAKING_S = 180.0
"""Longest wait in seconds for a function that sleeps because it was unused for weeks. AWS says no figure; users report
40 to 106 s (aws-solutions-library-samples/accelerated-intelligent-document-processing-on-aws on GitHub, 2026-09)."""
WAKING_POLL_S = 3.0
"""Pause in seconds between looks at a function that is being woken."""
DEEPEST_TREE = 12
"""Maximum depth of a launch tree: AWS stops chains of about 16 invocations in which functions invoke each other,
including the coordinator's (recursive loop detection); this leaves a margin."""

# --- Lambda MicroVMs --------------------------------------------------------------------------------------------------

MICROVM_MB = (512, 1024, 2048, 4096, 8192)
"""Sizes of a MicroVM: baseline memory in MB (Lambda API, `minimumMemoryInMiB`; launch post, 2026-06-22)."""
MICROVM_MB_PER_VCPU = 2048
"""Baseline memory in MB for which a MicroVM has one baseline vCPU (0.5 GB and 0.25 vCPU to 8 GB and 4 vCPU)."""
MICROVM_BURST = 4
"""Factor by which a MicroVM may exceed its baseline of memory and vCPUs, without a setting (launch post)."""
MICROVM_CONNECTIONS = 8
"""Maximum open connections to a MicroVM's endpoint for each vCPU of its burst (MicroVM quotas: 8 at 1 vCPU to 128 at
16; not adjustable)."""
MICROVM_ACCOUNT_MB = 400 * 1024
"""Default quota of the baseline memory of all MicroVMs of an account in a region, in MB (MicroVM quotas; 1,024 GB in
us-east-1, us-east-2, us-west-2 and ap-northeast-1, and less in new accounts)."""
MICROVM_S = 28_800.0
"""Longest life of a MicroVM in seconds (Lambda API, `maximumDurationInSeconds`)."""

# --- polls of the coordinator and its client --------------------------------------------------------------------------


class Backoff(NamedTuple):
    """Exponential backoff between polls: first pause in seconds, growth factor, and longest pause in seconds."""

    first_s: float
    factor: float
    longest_s: float

    def after(self, pause_s: float) -> float:
        """Return the pause that follows one of `pause_s` seconds."""
        return min(self.factor * pause_s, self.longest_s)


STATUS_BACKOFF = Backoff(0.05, 1.15, 1.0)
"""Polls of the client for a run's status: a short run is answered at once, a long one costs a request a second."""
REPORT_BACKOFF = Backoff(0.05, 1.5, 0.25)
"""Polls of the coordinator for the report of rank 0."""
FAILURES_POLL_S = 1
"""Duration in seconds of the coordinator's long polls of the failure queue."""
QUEUE_BACKOFF = Backoff(1.0, 1.5, 5.0)
"""Invocations of the coordinator by the client of a run that waits for admission."""
PLACE_S = 30.0
"""Seconds for which a run that waits for admission keeps its place after such an invocation."""
PROGRESS_S = 2.0
"""Interval in seconds at which rank 0 writes the progress of a run and the client reads it, and at which a coordinator
reads the failures of its run that other coordinators received."""
HEARTBEAT_S = 5.0
"""Interval in seconds at which a coordinator writes its heartbeat, and its client looks for it."""
SILENCE_S = 15.0
"""Seconds without a heartbeat after which a client takes the coordinator for dead."""
ABORTED_S = 8.0
"""Seconds that aborted ranks on functions may take to write their reports."""

SLOW_S = 10.0
"""Interval in seconds at which a slow rank tells its pace, and at which a coordinator that knows of one reads it."""

# --- threads of a rank ------------------------------------------------------------------------------------------------

STARTERS = 4
"""Maximum number of requests in flight that start children, load the shard and check claims."""
SENDERS = 4
"""Maximum number of PublishBatch requests in flight of the `queue` channel."""
WRITERS, READERS = 2, 8
"""Maximum numbers of PUT and GET requests in flight of the `object` channel."""

# --- frames and summaries ---------------------------------------------------------------------------------------------

FRAME_HEADER_BYTES = 28
"""Size in bytes of a frame's header and checksum, without the varints of source, edge and targets, in the first 128
attempts (rust_kernels/core/src/frame.rs)."""
MOST_MICRO_BATCHES = 65_535
"""Maximum number of micro-batches, which frames number in two bytes."""
CONTROL_BYTES = 128 * 1024
"""Maximum payload in bytes of a frame with part of a summary, which travels up the tree; every channel takes it."""
SUMMARY_BYTES = 8
"""Size in bytes of one sample's entry in a summary: a value and a neuron."""
EARLY_FRAMES_BYTES = 512 << 20
"""Maximum bytes of received frames that a rank keeps in memory, still packed, until their step; others go to disk."""
EARLY_FRAMES_SHARE = 1 / 8
"""The same as a share of the rank's memory: less than the margin over the memory formula that functions have."""
