"""Error codes of services: each client that meets a spelling treats it alike, and the API models name no other."""

from __future__ import annotations

import botocore.loaders
import pytest
from botocore.exceptions import ClientError

from fsd_inference.aws.clients import refusal
from fsd_inference.channels.queue import _is_transient
from fsd_inference.error_codes import DENIED, THROTTLED
from fsd_inference.errors import NotAllowedError
from fsd_inference.services import RefusedError

KMS_THROTTLING = ("KMSThrottling", "KMSThrottlingException", "KmsThrottled", "KMS.ThrottlingException")
KMS_DENIALS = ("KMSAccessDenied", "KMSAccessDeniedException", "KmsAccessDenied", "KMS.AccessDeniedException")


def answered(code: str, status: int = 400) -> ClientError:
    """Return the error of a control request that the service answered so."""
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Any")  # type: ignore[typeddict-item]


@pytest.mark.parametrize("code", [*KMS_THROTTLING, "OverLimit", "Throttled", "ThrottledException", "InternalFailure"])
def test_messages_and_control_requests_are_repeated_after_the_same_codes(code: str) -> None:
    assert refusal("read it", answered(code)).retryable
    assert _is_transient(RefusedError("slow down", 400, code))


@pytest.mark.parametrize("code", KMS_DENIALS)
def test_a_denial_by_kms_is_a_denial_and_not_repeated(code: str) -> None:
    found = refusal("read it", answered(code), "kms:Decrypt")
    assert isinstance(found, NotAllowedError)
    assert not found.retryable
    assert not _is_transient(RefusedError("denied", 400, code))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_the_status_alone_may_say_that_a_repetition_helps(status: int) -> None:
    assert refusal("read it", answered("Unheard", status)).retryable
    assert _is_transient(RefusedError("later", status, "Unheard"))


@pytest.mark.parametrize("service", ["sns", "sqs"])
def test_what_the_api_models_call_throttling_and_denial_is_known(service: str) -> None:
    shapes = botocore.loaders.Loader().load_service_model(service, "service-2")["shapes"]
    errors = {shape.get("error", {}).get("code", name) for name, shape in shapes.items() if shape.get("exception")}
    assert {code for code in errors if "Throttl" in code} <= THROTTLED
    assert {code for code in errors if "Denied" in code or "Authorization" in code} <= DENIED
    assert any("Throttl" in code for code in errors)
