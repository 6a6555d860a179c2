"""The clients of topics and queues beside botocore: requests, signatures and errors; and their connections."""

from __future__ import annotations

import datetime
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, AWSRequest, AWSResponse
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError
from hypothesis import given
from hypothesis import strategies as st
from moto.core.botocore_stubber import MockRawResponse

from fsd_inference.aws.sessions import emulator_session
from fsd_inference.services import NoAnswerError, QueueClient, RefusedError, TopicClient
from tests.support.message_service import REGION, Answer, MessageService, Request, deleted, published, received

TOPIC = "arn:aws:sns:us-east-1:000000000000:lane-0"
QUEUE = "https://sqs.us-east-1.amazonaws.com/000000000000/lane-rank-0"
BOTO3 = emulator_session(REGION).boto3

Operation = tuple[str, Callable[[Any], Any], Callable[[Any], Any]]
"""A service, and the same request by its boto3 client and by the clients of a `MessageService`."""

PUBLISH: Operation = (
    "sns",
    lambda client: client.publish_batch(
        TopicArn=TOPIC,
        PublishBatchRequestEntries=[
            {
                "Id": f"{number}",
                "Message": text,
                "MessageAttributes": {"to": {"DataType": "String.Array", "StringValue": '["1", "2 ü"]'}},
            }
            for number, text in enumerate(("Zmlyc3Q", "__-_"))
        ],
    ),
    lambda service: service.topics.publish(
        TOPIC, [("0", b"first", '["1", "2 ü"]'), ("1", b"\xff\xff\xbf", '["1", "2 ü"]')]
    ),
)
RECEIVE: Operation = (
    "sqs",
    lambda client: client.receive_message(QueueUrl=QUEUE, MaxNumberOfMessages=10, WaitTimeSeconds=20),
    lambda service: service.queues.receive(QUEUE, 10, 20),
)
DELETE: Operation = (
    "sqs",
    lambda client: client.delete_message_batch(
        QueueUrl=QUEUE, Entries=[{"Id": "0", "ReceiptHandle": 'r"1'}, {"Id": "1", "ReceiptHandle": "r2"}]
    ),
    lambda service: service.queues.delete(QUEUE, [("0", 'r"1'), ("1", "r2")]),
)
OPERATIONS = pytest.mark.parametrize(
    ("name", "ask_boto3", "ask"), [PUBLISH, RECEIVE, DELETE], ids=["publish", "receive", "delete"]
)
GOOD = {"sns": published(), "sqs": Answer(b"{}")}


@pytest.fixture(scope="module")
def running() -> Iterator[MessageService]:
    with MessageService() as started:
        yield started


@pytest.fixture
def service(running: MessageService) -> MessageService:
    return running.emptied()


def through_boto3(name: str, ask: Callable[[Any], Any], answer: Answer) -> tuple[Any, AWSPreparedRequest]:
    """Return what boto3 makes of an answer, its exception if it raises one, and the request that it would send."""
    client = BOTO3.client(name, endpoint_url="http://127.0.0.1:1")  # type: ignore[call-overload]
    sent: list[AWSPreparedRequest] = []

    def respond(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        sent.append(request)
        return AWSResponse(request.url, answer.status, dict(answer.headers), MockRawResponse(answer.body))  # type: ignore[arg-type]

    client.meta.events.register_first("before-send", respond)
    with patch("botocore.endpoint.Endpoint._needs_retry", return_value=False):
        try:
            return ask(client), sent[0]
        except (ClientError, ResponseParserError) as error:
            return error, sent[0]


@OPERATIONS
def test_requests_are_those_of_boto3(
    service: MessageService, name: str, ask_boto3: Callable[[Any], Any], ask: Callable[[MessageService], Any]
) -> None:
    _, expected = through_boto3(name, ask_boto3, GOOD[name])
    service.answers.append(GOOD[name])
    ask(service)
    (request,) = service.requests
    expected_body = expected.body if isinstance(expected.body, bytes) else str(expected.body).encode()
    assert (request.path, expected.method) == ("/", "POST")
    read = (lambda body: parse_qs(body.decode(), strict_parsing=True)) if name == "sns" else json.loads
    assert read(request.body) == read(expected_body)
    meant = {key.lower(): value for key, value in expected.headers.items()}
    for own in ("user-agent", "x-amz-date", "authorization", "content-length", "amz-sdk-invocation-id"):
        meant.pop(own, None)
    meant.pop("amz-sdk-request", None)
    assert {key: value if isinstance(value, str) else value.decode() for key, value in meant.items()}.items() <= (
        request.headers.items()
    )


@OPERATIONS
@pytest.mark.parametrize("token", [None, "token/+="])
def test_signatures_are_those_of_botocore(
    service: MessageService,
    name: str,
    ask_boto3: Callable[[Any], Any],
    ask: Callable[[MessageService], Any],
    token: str | None,
) -> None:
    service.answers.append(GOOD[name])
    with patch.object(service, "endpoint", keyed(service, lambda: ("id", "secret/+", token))):
        ask(service)
    (request,) = service.requests
    assert request.headers["authorization"] == signature_of(
        request, name, service.url, Credentials("id", "secret/+", token)
    )


def keyed(service: MessageService, keys: Callable[[], tuple[str, str, str | None]]) -> Callable[..., Any]:
    endpoint = service.endpoint
    return lambda **options: endpoint(keys=keys, **options)


def signature_of(request: Request, name: str, url: str, credentials: Credentials) -> str:
    """Return the header with which botocore signs a received request, by the clock of its sender."""
    signed = request.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {"host", "x-amz-date"} <= {*signed}
    headers = {key: request.headers[key] for key in signed if key not in {"host", "x-amz-date"}}
    again = AWSRequest("POST", f"{url}/", headers=headers, data=request.body)
    sent_at = datetime.datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)
    with patch("botocore.auth.get_current_datetime", return_value=sent_at):
        SigV4Auth(credentials, name, REGION).add_auth(again)
    assert again.headers.get("X-Amz-Security-Token") == request.headers.get("x-amz-security-token")
    return str(again.headers["Authorization"])


JSON_ERRORS = [
    {"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "gone"},
    {"__type": "AccessDeniedException", "Message": "you may not"},
    {"__type": "Throttling:http://internal", "message": "slow down"},
    {"message": "no type"},
    {},
]
XML_ERRORS = [
    "<ErrorResponse><Error><Type>Sender</Type><Code>NotFound</Code><Message>&lt;gone&gt;</Message></Error></ErrorResponse>",
    '<ErrorResponse xmlns="http://x/"><Error><Code>InternalError</Code><Message/></Error><RequestId>r</RequestId></ErrorResponse>',
    "<ErrorResponse><Errors><Error><Code>Throttled</Code><Message>slow</Message></Error></Errors></ErrorResponse>",
]
BODIES = [b"", b" ", b"<html><body>busy</body></html>", b"not of any form", b'{"__type": "cut', b"<ErrorResponse><Err"]
FAILURES = st.builds(
    Answer,
    st.one_of(
        st.sampled_from([json.dumps(error).encode() for error in JSON_ERRORS]),
        st.sampled_from([error.encode() for error in XML_ERRORS]),
        st.sampled_from(BODIES),
    ),
    st.sampled_from([301, 400, 403, 404, 413, 429, 500, 503]),
    st.one_of(
        st.just({}),
        st.sampled_from(["AWS.SimpleQueueService.NonExistentQueue;Sender", ";Sender", "OnlyACode"]).map(
            lambda value: {"x-amzn-query-error": value}
        ),
    ),
)


@given(st.sampled_from([PUBLISH, RECEIVE, DELETE]), FAILURES)
def test_failures_are_read_as_boto3_reads_them(running: MessageService, operation: Operation, answer: Answer) -> None:
    name, ask_boto3, ask = operation
    expected, _ = through_boto3(name, ask_boto3, answer)
    running.answers.clear()
    running.answers.append(answer)
    with pytest.raises((RefusedError, NoAnswerError)) as caught:
        ask(running)
    if isinstance(expected, ResponseParserError):
        assert caught.type is NoAnswerError
        return
    assert isinstance(expected, ClientError)
    assert caught.type is RefusedError
    text, status, code = caught.value.args
    assert status == answer.status
    error = expected.response.get("Error")
    if error:  # XML may have none
        assert code == error["Code"]
        assert text == f"the service answered {status} {code} ({error['Message'] or ''})"


def test_failed_entries_are_read_as_boto3_reads_them(service: MessageService) -> None:
    entries = [
        {"Id": "0", "Code": "Internal<Error>", "Message": "a & b", "SenderFault": False},
        {"Id": "1", "Code": "Invalid", "SenderFault": True},
    ]
    for (name, ask_boto3, ask), answer in ((PUBLISH, published(entries)), (DELETE, deleted(entries))):
        service.answers.clear()
        service.answers.append(answer)
        expected, _ = through_boto3(name, ask_boto3, answer)
        assert ask(service) == [
            (entry["Id"], entry["Code"], entry.get("Message", ""), entry["SenderFault"]) for entry in expected["Failed"]
        ]


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=10))
def test_bodies_that_are_published_are_received(running: MessageService, bodies: list[bytes]) -> None:
    running.requests.clear()
    running.answers.clear()
    running.answers.append(published())
    running.topics.publish(TOPIC, [(str(number), body, '["1"]') for number, body in enumerate(bodies)])
    form = running.requests[0].form
    texts = [form[f"PublishBatchRequestEntries.member.{number + 1}.Message"] for number in range(len(bodies))]
    running.answers.clear()
    running.answers.append(received(*texts))
    assert running.queues.receive(QUEUE, 10, 0) == (
        bodies,
        sum(map(len, texts)),
        [f"receipt-{number}" for number in range(len(bodies))],
    )


def test_keys_are_asked_for_with_each_request_and_their_errors_are_raised(service: MessageService) -> None:
    keys = iter([("first", "s", None), ("second", "s", "token")])
    client = QueueClient(service.endpoint(keys=lambda: next(keys)))
    service.answers.append(Answer(b"{}"))
    for _ in range(2):
        client.receive(QUEUE, 10, 0)
    assert ["Credential=first/" in request.headers["authorization"] for request in service.requests] == [True, False]
    with pytest.raises(StopIteration):
        client.receive(QUEUE, 10, 0)


def test_connections_are_kept_and_one_that_was_closed_is_not_used(service: MessageService) -> None:
    client, before = service.queues, service.connections
    service.answers.extend((Answer(b"{}"), Answer(b"{}"), Answer(b"{}", hangs_up=True), Answer(b"{}")))
    for _ in range(3):
        client.receive(QUEUE, 10, 0)
    assert service.connections == before + 1
    assert service.hung_up.wait(30)
    client.receive(QUEUE, 10, 0)
    assert service.connections == before + 2


def test_threads_share_a_client(service: MessageService) -> None:
    client = service.queues
    service.answers.append(received("AAAA"))
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: client.receive(QUEUE, 10, 0), range(200)))
    assert found == [([bytes(3)], 4, ["receipt-0"])] * 200
    assert len(service.requests) == 200


def test_a_fork_does_not_use_the_connections_of_its_parent(service: MessageService) -> None:
    service.answers.append(Answer(b"{}"))
    program = f"""
import os
from fsd_inference.services import QueueClient, ServiceEndpoint
client = QueueClient(ServiceEndpoint({service.url!r}, "us-east-1", lambda: ("id", "secret", None), proxy=None,
    certificates=b"", connections=4, connect_timeout_s=5.0, answer_timeout_s=20.0))
client.receive("queue", 10, 0)
if not (child := os.fork()):
    client.receive("queue", 10, 0)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
client.receive("queue", 10, 0)
"""
    before = service.connections
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert (len(service.requests), service.connections - before) == (3, 2)


def test_no_answer(service: MessageService) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent_url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for url, says in ((silent_url, "timeout"), ("http://127.0.0.1:1", "refused")):
            client = QueueClient(service.endpoint(url=url, answer_timeout_s=0.05))
            with pytest.raises(NoAnswerError, match=says):
                client.receive(QUEUE, 10, 0)


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"Messages": [{"Body": "A"}]}', b"<html></html>"])
def test_an_answer_of_another_form_is_none(service: MessageService, body: bytes) -> None:
    service.answers.append(Answer(body))
    with pytest.raises(NoAnswerError, match="ReceiveMessage is not the expected JSON"):
        service.queues.receive(QUEUE, 10, 0)
    with pytest.raises(NoAnswerError, match="PublishBatch is not whole XML"):
        service.topics.publish(TOPIC, [("0", b"", "[]")])


@pytest.mark.parametrize("status", [200, 400])
def test_an_answer_larger_than_any_that_is_expected_is_none(service: MessageService, status: int) -> None:
    empty = b"<PublishBatchResponse><PublishBatchResult>%b</PublishBatchResult></PublishBatchResponse>"
    service.answers.append(Answer(empty % (b"<a/>" * (1 << 18)), status))
    with pytest.raises(NoAnswerError, match="limit"):
        service.topics.publish(TOPIC, [("0", b"", "[]")])


@pytest.mark.parametrize(
    "wrong", [{"proxy": "ftp://x"}, {"proxy": " "}, {"connect_timeout_s": -1.0}, {"answer_timeout_s": float("nan")}]
)
def test_options_that_mean_nothing(service: MessageService, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not"):
        TopicClient(service.endpoint(**wrong))


def test_a_proxy_is_asked_for_a_tunnel(service: MessageService) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        asked = []

        def refuse() -> None:
            connection, _ = proxy.accept()
            with connection:
                asked.append("")
                while not asked[0].endswith("\r\n\r\n"):
                    asked[0] += connection.recv(4096).decode()
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

        refusing = threading.Thread(target=refuse)
        refusing.start()
        url = f"http://user:word@127.0.0.1:{proxy.getsockname()[1]}"
        client = QueueClient(service.endpoint(url="https://sqs.example.invalid", proxy=url))
        with pytest.raises(NoAnswerError, match="403"):
            client.receive(QUEUE, 10, 0)
        refusing.join()
    assert asked[0].startswith("CONNECT sqs.example.invalid:443 HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic dXNlcjp3b3Jk\r\n" in asked[0]


def test_nothing_is_read_from_the_environment(service: MessageService, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert "NO_PROXY" not in os.environ
    service.answers.append(Answer(b"{}"))
    assert service.queues.receive(QUEUE, 10, 0) == ([], 0, [])
