"""What the proxy is told to do with the requests that a fault concerns."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl, urlencode
from xml.etree import ElementTree

import botocore.session
import pytest

from fsd_inference import error_codes
from fsd_inference.chaos import proxy
from fsd_inference.chaos.error_answers import ERRORS, THROTTLED, error_answer
from fsd_inference.chaos.request_faults import RequestFaults, corrupted
from fsd_inference.chaos.schedule import Fault

ENTRIES = "PublishBatchRequestEntries.member."
BATCH = urlencode(
    [("Action", "PublishBatch")]
    + [(f"{ENTRIES}{n}.{key}", value) for n in (1, 2, 3) for key, value in (("Id", str(n - 1)), ("Message", "YQ"))]
).encode()


def request(kind: str, number: int, body: bytes = b"") -> proxy.Request:
    return proxy.Request(kind, number, "POST", "/", {}, body)


def test_the_requests_that_are_concerned() -> None:
    fault = Fault("reset connection", 2, request="s3.put", times=2)
    hook = RequestFaults([fault])
    assert [number for number in range(6) if hook(request("s3.put", number))] == [2, 3]
    assert hook(request("s3.get", 2)) is None
    assert hook.fired == {fault}


def test_throttling_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("fsd_inference.chaos.request_faults.time.monotonic", lambda: now[0])
    hook = RequestFaults([Fault("throttle", 1, request="sns.publish", seconds=3.0)])
    assert hook(request("sns.publish", 0)) is None
    found = hook(request("sns.publish", 1))
    assert found is not None
    assert (found.status, "Throttled" in found.body) == (429, True)
    now[0] += 2.9
    assert hook(request("sns.publish", 9)) is not None
    now[0] += 0.2
    assert hook(request("sns.publish", 10)) is None


def test_a_fault_of_a_process_waits_for_its_request() -> None:
    fault = Fault("kill coordinator", 1, rank=0, request="s3.put")
    hook = RequestFaults([fault])
    assert hook(request("s3.put", 0)) is None
    assert not hook.reached(fault).is_set()
    assert hook(request("s3.put", 1)) is None
    assert hook.reached(fault).is_set()


def test_a_part_of_a_batch_fails() -> None:
    found = RequestFaults([Fault("partial batch", request="sns.publish")])(request("sns.publish", 0, BATCH))
    assert found is not None
    assert found.change_request is not None
    assert found.change_answer is not None
    sent = dict(parse_qsl(found.change_request(BATCH).decode()))
    assert {value for key, value in sent.items() if key.endswith(".Id")} == {"0", "1"}
    answer = found.change_answer(
        b"<PublishBatchResponse><PublishBatchResult><Successful/></PublishBatchResult></PublishBatchResponse>"
    )
    (failed,) = ElementTree.fromstring(answer).iter("Failed")
    assert [each.text for each in failed.iter("Id")] == ["2"]


def test_a_lost_publication_is_said_to_have_succeeded() -> None:
    found = RequestFaults([Fault("lose request", request="sns.publish")])(request("sns.publish", 0, BATCH))
    assert found is not None
    assert found.status == 200
    (successful,) = ElementTree.fromstring(found.body).iter("Successful")
    assert [each.text for each in successful.iter("Id")] == ["0", "1", "2"]


def test_messages_in_reverse_order() -> None:
    found = RequestFaults([Fault("reorder", request="sqs.receive")])(request("sqs.receive", 0))
    assert found is not None
    assert found.change_answer is not None
    assert json.loads(found.change_answer(b'{"Messages": [1, 2, 3]}')) == {"Messages": [3, 2, 1]}
    assert json.loads(found.change_answer(b"{}")) == {"Messages": []}


@pytest.mark.parametrize("body", [b"a", b"AAAA", bytes(range(256)), b"{}", b"\x80" * 9])
def test_one_byte_is_another(body: bytes) -> None:
    changed = corrupted(body)
    assert len(changed) == len(body)
    assert sum(a != b for a, b in zip(changed, body, strict=True)) == 1
    assert corrupted(b"") == b""


@pytest.mark.parametrize(("kind", "service"), [("sns.publish", "sns"), ("lambda.invoke", "lambda")])
def test_statuses_are_those_of_the_models(kind: str, service: str) -> None:
    model = botocore.session.get_session().get_service_model(service)
    known = {
        shape.metadata.get("error", {}).get("code", shape.name): shape.metadata["error"]["httpStatusCode"]
        for shape in model.error_shapes
        if "error" in shape.metadata
    }
    found = {code: status for code, status in ERRORS[kind].items() if code in known}
    assert len(found) >= 3
    assert found == {code: known[code] for code in found}


def test_what_throttles_is_throttling() -> None:
    assert set(THROTTLED) == set(ERRORS)
    for kind, code in THROTTLED.items():
        assert error_codes.is_throttled(ERRORS[kind][code], code)
        status, headers, body = error_answer(kind, code)
        assert status == ERRORS[kind][code]
        assert code in body or code in dict(headers).values()
