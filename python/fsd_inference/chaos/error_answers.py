"""Error answers as the AWS services give them.

Statuses and codes are those of the services' API models in botocore 1.44 (2026-11) and, for errors that all actions
share and for S3, of the API references (2026-11).
"""

from __future__ import annotations

import json

_S3 = {
    "SlowDown": 503,
    "InternalError": 500,
    "ServiceUnavailable": 503,
    "OperationAborted": 409,
    "RequestTimeout": 400,
    "RequestTimeTooSkewed": 403,
    "AccessDenied": 403,
}
ERRORS: dict[str, dict[str, int]] = {
    "sns.publish": {
        "Throttled": 429,
        "ThrottlingException": 400,
        "InternalError": 500,
        "ServiceUnavailable": 503,
        "KMSThrottling": 400,
        "AuthorizationError": 403,
    },
    "sqs.receive": {
        "RequestThrottled": 400,
        "OverLimit": 400,
        "KmsThrottled": 400,
        "InternalFailure": 500,
        "ServiceUnavailable": 503,
        "QueueDoesNotExist": 400,
    },
    "s3.get": _S3,
    "s3.put": _S3,
    "s3.list": _S3,
    "lambda.invoke": {
        "TooManyRequestsException": 429,
        "ServiceException": 500,
        "EC2ThrottledException": 502,
        "ResourceConflictException": 409,
        "CodeArtifactUserPendingException": 409,
    },
}
"""HTTP status of each error code, by kind of request."""

THROTTLED = {
    "sns.publish": "Throttled",
    "sqs.receive": "RequestThrottled",
    "s3.get": "SlowDown",
    "s3.put": "SlowDown",
    "s3.list": "SlowDown",
    "lambda.invoke": "TooManyRequestsException",
}
"""The code with which each kind of request is throttled."""

Headers = tuple[tuple[str, str], ...]


def error_answer(request: str, code: str) -> tuple[int, Headers, str]:
    """Return status, headers and body of an error answer.

    Parameters
    ----------
    request : str
        Kind of the request, one of `ERRORS`.
    code : str
        Code of the error.
    """
    status, text = ERRORS[request][code], "injected"
    sender = "Sender" if status < 500 else "Receiver"
    match request.partition(".")[0]:
        case "sns":
            body = f"<Error><Type>{sender}</Type><Code>{code}</Code><Message>{text}</Message></Error>"
            return status, (("Content-Type", "text/xml"),), f"<ErrorResponse>{body}</ErrorResponse>"
        case "sqs":
            headers = (("Content-Type", "application/x-amz-json-1.0"), ("x-amzn-query-error", f"{code};{sender}"))
            return status, headers, json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": text})
        case "lambda":
            headers = (("Content-Type", "application/json"), ("x-amzn-ErrorType", code))
            return status, headers, json.dumps({"Type": "User", "message": text})
        case _:
            body = f"<Error><Code>{code}</Code><Message>{text}</Message></Error>"
            return status, (("Content-Type", "application/xml"),), body
