"""Clients of SNS topics and SQS queues, from the extension; they send each request once, without retries."""

from __future__ import annotations

import re

from fsd_inference._kernels import NoAnswerError, QueueClient, RefusedError, ServiceEndpoint, TopicClient

__all__ = [
    "NoAnswerError",
    "QueueClient",
    "RefusedError",
    "ServiceEndpoint",
    "TopicClient",
    "without_signatures",
]

_SIGNATURE = re.compile(r"AWS4-[^'\"]*|(?<=[Aa]uthorization)\W+\S+")


def without_signatures(text: str) -> str:
    """Return the text of a service's error on one line, without the signatures of requests."""
    return _SIGNATURE.sub("(left out)", " ".join(text.split()))
