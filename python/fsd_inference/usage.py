"""Counts of a run's requests, billing units and bytes, and the meter that collects them."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from fsd_inference.fields import Fields

EACH_MESSAGE = ".messages"
"""Suffix of the kinds of billing units that round up each message of a batch, instead of the batch's total."""
RECEIVED_MESSAGES = f"sqs.receive{EACH_MESSAGE}"
"""Kind of the billing units of the messages that SNS wrote into queues, counted when they are received."""


@dataclass(slots=True)
class Usage:
    """Requests, billing units and bytes of a run, counted where each request is made.

    Attributes
    ----------
    requests : Counter
        HTTP requests by kind (``"sns.publish"``, ``"sqs.receive"``, ``"s3.get"``...), including retries and misses.
    billed_units : Counter
        Billing units by kind: 64 KiB units for SNS and SQS, requests for S3. AWS does not say how it rounds a
        PublishBatch, so both ways are counted: ``"sns.publish"`` rounds the batch, ``"sns.publish.messages"`` each
        message. ``"sqs.receive.messages"`` rounds each received message, as a write into the queue would be billed.
    retries : int
        Requests that repeated a failed one (also counted in `requests`).
    misses : int
        Reads of absent objects (also counted in `requests`).
    empty_polls : int
        Receive requests that returned no messages (also counted in `requests`).
    frames : int
        Frames passed to the channel; a frame with several targets counts once.
    wire_bytes : int
        Bytes of those frames including their headers.
    body_bytes : int
        Bytes sent to the service, after base64 encoding.
    received_bytes : int
        Bytes of bodies received from the service.

    Examples
    --------
    >>> from collections import Counter
    >>> import fsd_inference as fsd
    >>> one = fsd.Usage(requests=Counter({"s3.get": 2}))
    >>> (one + one).requests["s3.get"]
    4
    """

    requests: Counter[str] = field(default_factory=Counter)
    billed_units: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    misses: int = 0
    empty_polls: int = 0
    frames: int = 0
    wire_bytes: int = 0
    body_bytes: int = 0
    received_bytes: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.requests + other.requests,
            self.billed_units + other.billed_units,
            *(getattr(self, name) + getattr(other, name) for name in _USAGE_TOTALS),
        )

    def __sub__(self, earlier: Usage) -> Usage:
        return Usage(
            self.requests - earlier.requests,
            self.billed_units - earlier.billed_units,
            *(getattr(self, name) - getattr(earlier, name) for name in _USAGE_TOTALS),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the counts as plain JSON values."""
        return {
            "requests": dict(sorted(self.requests.items())),
            "billed_units": dict(sorted(self.billed_units.items())),
            **{name: getattr(self, name) for name in _USAGE_TOTALS},
        }

    @classmethod
    def from_json(cls, value: object) -> Usage:
        """Rebuild the counts from `to_json`; raise FileFormatError naming the field that is missing or wrong."""
        return cls.from_fields(Fields(value, "usage."))

    @classmethod
    def from_fields(cls, fields: Fields) -> Usage:
        """Read the counts from the fields of an object, which may have other fields too."""
        return cls(
            Counter(fields.take_counts("requests")),
            Counter(fields.take_counts("billed_units")),
            *(fields.take_count(name) for name in _USAGE_TOTALS),
        )


_USAGE_TOTALS = ("retries", "misses", "empty_polls", "frames", "wire_bytes", "body_bytes", "received_bytes")


class UsageMeter:
    """A thread-safe counter of `Usage`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._usage = Usage()

    def request(self, kind: str, *, units: int = 1, retry: bool = False) -> None:
        """Count one HTTP request of `kind` that is billed as `units`."""
        with self._lock:
            self._usage.requests[kind] += 1
            self._usage.billed_units[kind] += units
            self._usage.retries += retry

    def more_units(self, kind: str, units: int) -> None:
        """Count additional billing units of a request of `kind`, known only from its response."""
        with self._lock:
            self._usage.billed_units[kind] += units

    def miss(self) -> None:
        """Count a read of an absent object (the request itself is counted separately)."""
        with self._lock:
            self._usage.misses += 1

    def empty_poll(self) -> None:
        """Count a receive request that returned no messages (the request itself is counted separately)."""
        with self._lock:
            self._usage.empty_polls += 1

    def sent(self, *, frames: int, wire_bytes: int, body_bytes: int) -> None:
        """Count frames sent to the service, and their bytes."""
        with self._lock:
            self._usage.frames += frames
            self._usage.wire_bytes += wire_bytes
            self._usage.body_bytes += body_bytes

    def received(self, body_bytes: int) -> None:
        """Count bytes of bodies received from the service."""
        with self._lock:
            self._usage.received_bytes += body_bytes

    def snapshot(self) -> Usage:
        """Return a copy of the counts so far."""
        with self._lock:
            return self._usage + Usage()
