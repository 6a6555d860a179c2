"""Names of the communication channels, and their names in earlier releases."""

from __future__ import annotations

CHANNELS = ("serial", "local", "queue", "object")
"""A single process; processes on this machine over sockets; workers over SNS and SQS; workers over S3."""

_FORMER = {"memory": "local"}


def current_name(channel: str) -> str:
    """Return the current name of a channel; names that were never changed are returned as they are."""
    return _FORMER.get(channel, channel)


def renamed(channel: str) -> str:
    """Return the deprecation warning for a former name."""
    return (
        f"the channel {channel!r} is called {current_name(channel)!r} now; a later release will refuse the former name"
    )
