"""Error codes of AWS services, grouped by what a caller can do about them.

SNS and SQS spell the errors of KMS differently, and SQS in two ways: as today's API models name them, and as its query
protocol did, whose names its JSON protocol still sends in a header (API models in botocore 1.44, 2026-11).
"""

from __future__ import annotations

THROTTLED = frozenset(
    {"OverLimit", "RequestLimitExceeded", "RequestThrottled", "SlowDown", "Throttled", "ThrottledException"}
    | {"Throttling", "ThrottlingException", "TooManyRequestsException"}
    | {"KMSThrottling", "KMSThrottlingException", "KmsThrottled", "KMS.ThrottlingException"}
)
"""The request exceeded a rate or a quota: repeat it, but more slowly."""
TRANSIENT = THROTTLED | {
    "InternalError", "InternalFailure", "OperationAborted", "RequestTimeout", "ServiceUnavailable",
}  # fmt: skip
"""Repeating the request may succeed."""
DENIED = frozenset(
    {"AccessDenied", "AccessDeniedException", "AuthorizationError", "AuthorizationErrorException"}
    | {"KMSAccessDenied", "KMSAccessDeniedException", "KmsAccessDenied", "KMS.AccessDeniedException"}
    | {"UnauthorizedOperation", "403"}  # "403" for HEAD, whose response has no body
)
"""A policy does not allow the request."""
TOO_MANY_REQUESTS = 429
"""HTTP status of a throttled request."""


def is_throttled(status: int, code: str) -> bool:
    """Return whether an error response says that the request was throttled."""
    return status == TOO_MANY_REQUESTS or code in THROTTLED


def is_transient(status: int, code: str) -> bool:
    """Return whether repeating a request with this error response may succeed."""
    return status >= 500 or status == TOO_MANY_REQUESTS or code in TRANSIENT
