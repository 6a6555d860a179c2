"""What errors of the AWS SDK for Python mean, and what may be said of them."""

from __future__ import annotations

import json
import re
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnectionError
from botocore.parsers import ResponseParserError

SDK_ERRORS = (ClientError, BotoCoreError, ResponseParserError)
"""All that a call may raise; a body that was cut short is no `BotoCoreError`."""

_SIGNATURE = re.compile(r"AWS4-[^'\"]*|(?<=[Aa]uthorization)\W+\S+")


def check_json(operation_model: Any, response_dict: dict[str, Any], **_: Any) -> None:
    """Raise `ResponseParserError` for a JSON answer that was cut short; a handler of the SDK's event ``before-parse``.

    The SDK takes a body that is no JSON for an empty answer: a receive would find nothing, although the messages that
    it was given are hidden from then on.
    """
    body, answer = response_dict["body"], operation_model.output_shape
    if (
        not operation_model.metadata.get("jsonVersion")
        or not isinstance(body, bytes)
        or response_dict["status_code"] >= 300
    ):
        return
    if not body and not (answer and answer.members):
        return  # an operation that answers nothing
    try:
        json.loads(body)
    except ValueError as error:
        raise ResponseParserError(f"the answer to {operation_model.name} is not JSON ({error})") from error


def was_broken_off(error: Exception) -> bool:
    """Return whether no whole answer came, so that the request may be sent again."""
    if isinstance(error, HTTPClientError) and isinstance(error.kwargs.get("error"), ValueError):
        return False  # it was never sent: a header holds what none may
    return isinstance(error, NoConnectionError | HTTPClientError | ResponseParserError)


def text_of(error: Exception) -> str:
    """Return an error's text on one line, without what signs requests."""
    return _SIGNATURE.sub("(left out)", " ".join(str(error).split()))
