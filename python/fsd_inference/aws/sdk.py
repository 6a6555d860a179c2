"""Classification of errors of the AWS SDK for Python, and their text."""

from __future__ import annotations

import json
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnectionError
from botocore.parsers import ResponseParserError

from fsd_inference.services import without_signatures

SDK_ERRORS = (ClientError, BotoCoreError, ResponseParserError)
"""All exceptions that a call may raise; the one for a truncated body is not a `BotoCoreError`."""


def check_json(operation_model: Any, response_dict: dict[str, Any], **_: Any) -> None:
    """Raise `ResponseParserError` for a truncated JSON response; a handler of the SDK's event ``before-parse``.

    The SDK treats a body that is not JSON as an empty response: a receive would return nothing, although SQS hides the
    messages in it from then on.
    """
    body, answer = response_dict["body"], operation_model.output_shape
    if (
        not operation_model.metadata.get("jsonVersion")
        or not isinstance(body, bytes)
        or response_dict["status_code"] >= 300
    ):
        return
    if not body and not (answer and answer.members):
        return  # an operation without a response body
    try:
        json.loads(body)
    except ValueError as error:
        raise ResponseParserError(f"the response to {operation_model.name} is not JSON ({error})") from error


def was_broken_off(error: Exception) -> bool:
    """Return whether a request got no complete response, so that it may be retried."""
    if isinstance(error, HTTPClientError) and isinstance(error.kwargs.get("error"), ValueError):
        return False  # it was never sent: a header has an illegal character
    return isinstance(error, NoConnectionError | HTTPClientError | ResponseParserError)


def text_of(error: Exception) -> str:
    """Return an error's text on one line, without request signatures."""
    return without_signatures(str(error))
