"""Names of the communication channels, and their names in earlier releases."""

from __future__ import annotations

CHANNELS = ("serial", "local", "queue", "object")
"""A single process; processes on this machine over sockets; workers over SNS and SQS; workers over S3."""

MODELLED = ("direct",)
"""Channels that no run can use. `direct`, which `fsd advise` and `fsd simulate` model: workers on Lambda MicroVMs that
send each other frames."""
_FORMER = {"memory": "local"}


def current_name(channel: str) -> str:
    """Return the current name of a channel; names that were never changed are returned as they are."""
    return _FORMER.get(channel, channel)


def renamed(channel: str) -> str:
    """Return the deprecation warning for a former name."""
    return (
        f"the channel {channel!r} is called {current_name(channel)!r} now; a later release will refuse the former name"
    )


def modelled_only(channel: str) -> str:
    """Return the refusal to run over a channel of `MODELLED`."""
    return (
        f"the channel {channel!r} is only modelled and cannot run: choose one of {', '.join(CHANNELS)}, or predict it "
        "with `fsd simulate` or `fsd advise`"
    )
