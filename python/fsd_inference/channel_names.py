"""Names of the channels, and what earlier releases called them."""

from __future__ import annotations

CHANNELS = ("serial", "local", "queue", "object")
"""One process alone; processes of this machine over sockets; workers over SNS and SQS; workers over S3."""

_FORMER = {"memory": "local"}


def current_name(channel: str) -> str:
    """Return what a channel is called now; a name that no earlier release changed is returned as it is."""
    return _FORMER.get(channel, channel)


def renamed(channel: str) -> str:
    """Return what to tell the user of a name that has changed."""
    return f"the channel {channel!r} is called {current_name(channel)!r} now; the former name will be refused one day"
