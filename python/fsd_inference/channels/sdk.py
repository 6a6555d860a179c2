"""What errors of the AWS SDK for Python mean, and what may be said of them."""

from __future__ import annotations

import re

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnectionError
from botocore.parsers import ResponseParserError

SDK_ERRORS = (ClientError, BotoCoreError, ResponseParserError)
"""All that a call may raise; a body that was cut short is no `BotoCoreError`."""

_SIGNATURE = re.compile(r"AWS4-[^'\"]*|(?<=[Aa]uthorization)\W+\S+")


def was_broken_off(error: Exception) -> bool:
    """Return whether no whole answer came, so that the request may be sent again."""
    if isinstance(error, HTTPClientError) and isinstance(error.kwargs.get("error"), ValueError):
        return False  # it was never sent: a header holds what none may
    return isinstance(error, NoConnectionError | HTTPClientError | ResponseParserError)


def text_of(error: Exception) -> str:
    """Return an error's text on one line, without what signs requests."""
    return _SIGNATURE.sub("(left out)", " ".join(str(error).split()))
