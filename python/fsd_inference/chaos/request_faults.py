"""The faults of a schedule that happen to requests, as what the proxy does with each request."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from urllib.parse import parse_qsl, urlencode
from xml.sax.saxutils import escape

from fsd_inference.chaos import proxy
from fsd_inference.chaos.error_answers import THROTTLED, error_answer
from fsd_inference.chaos.schedule import OF_PROCESSES, Fault

_FOREVER_S = 3600.0
_REFUSED = "InternalError"
_ENTRY = "PublishBatchRequestEntries.member."


class RequestFaults:
    """A hook of the proxy that injects the faults of a schedule.

    Parameters
    ----------
    faults : sequence of Fault
        Those that happen to processes are only noticed: `reached` says when the request is made that they wait for.

    Attributes
    ----------
    fired : set of Fault
        Faults that have been injected.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._faults = [fault for fault in faults if fault.kind not in OF_PROCESSES]
        self._awaited = {fault: threading.Event() for fault in faults if fault.kind in OF_PROCESSES and fault.request}
        self._since: dict[Fault, float] = {}
        self.fired: set[Fault] = set()

    def reached(self, fault: Fault) -> threading.Event:
        """Return the event that is set when the request is made that a fault of a process waits for."""
        return self._awaited[fault]

    def __call__(self, request: proxy.Request) -> proxy.Fault | None:
        """Return what to do with a request; None to forward it."""
        for fault, event in self._awaited.items():
            if request.kind == fault.request and request.number >= fault.at:
                event.set()
        for fault in self._faults:
            if self._concerns(fault, request):
                self.fired.add(fault)
                return _INJECTED.get(fault.kind, _refused)(fault, request)
        return None

    def _concerns(self, fault: Fault, request: proxy.Request) -> bool:
        if fault.request not in {"", request.kind}:
            return False
        if fault.kind == "throttle":
            if request.number < fault.at:
                return False
            return time.monotonic() < self._since.setdefault(fault, time.monotonic()) + fault.seconds
        if fault.kind == "reorder" and (request.number - fault.at) % 2:  # every other one is overtaken
            return False
        return not fault.request or fault.at <= request.number < fault.at + fault.times


def corrupted(body: bytes) -> bytes:
    """Return a body in which one letter or digit in the last quarter, or else one byte, is another."""
    if not body:
        return body
    start = len(body) * 3 // 4
    at = next((at for at in range(start, len(body)) if chr(body[at]).isalnum() and body[at] < 128), start)
    other = b"A" if body[at : at + 1] != b"A" else b"B"
    return body[:at] + other + body[at + 1 :]


def _reversed(body: bytes) -> bytes:
    """Return an answer of ReceiveMessage with its messages in reverse order."""
    value = json.loads(body)
    return json.dumps({**value, "Messages": value.get("Messages", [])[::-1]}).encode()


def _reordered(fault: Fault, request: proxy.Request) -> proxy.Fault:
    return proxy.Fault(change_answer=_reversed) if request.kind == "sqs.receive" else proxy.Fault(delay_s=fault.seconds)


def _corrupting(_: Fault, request: proxy.Request) -> proxy.Fault:
    is_sent = request.kind in {"sns.publish", "s3.put"}
    return proxy.Fault(change_request=corrupted) if is_sent else proxy.Fault(change_answer=corrupted)


def _refused(fault: Fault, request: proxy.Request) -> proxy.Fault:
    status, headers, body = error_answer(request.kind, fault.detail or THROTTLED[request.kind])
    return proxy.Fault(status=status, headers=headers, body=body)


def _swallowed(_: Fault, request: proxy.Request) -> proxy.Fault:
    """Return an answer that says that the request has succeeded, which nobody has carried out."""
    if request.kind == "sns.publish":
        published = "".join(f"<member><Id>{escape(name)}</Id></member>" for name in _entries(request.body))
        return proxy.Fault(status=200, headers=(("Content-Type", "text/xml"),), body=_answer(published, ""))
    if request.kind == "lambda.invoke":
        return proxy.Fault(status=202, body=" ")
    return proxy.Fault(status=200, headers=(("ETag", '"0123456789abcdef0123456789abcdef"'),), body=" ")


def _partial(_: Fault, request: proxy.Request) -> proxy.Fault:
    """Return a fault that publishes all entries of a batch but the last, and says so in the answer."""
    names = _entries(request.body)
    failed = (
        f"<member><Id>{escape(names[-1])}</Id><Code>{_REFUSED}</Code><Message>injected</Message>"
        "<SenderFault>false</SenderFault></member>"
    )
    if len(names) == 1:
        return proxy.Fault(status=200, headers=(("Content-Type", "text/xml"),), body=_answer("", failed))

    def without_last(body: bytes) -> bytes:
        fields = parse_qsl(body.decode(), keep_blank_values=True)
        return urlencode([each for each in fields if not each[0].startswith(f"{_ENTRY}{len(names)}.")]).encode()

    def with_failed(answer: bytes) -> bytes:
        for empty in (b"<Failed/>", b"<Failed></Failed>", b"<Failed />"):
            answer = answer.replace(empty, b"")
        return answer.replace(b"</PublishBatchResult>", f"<Failed>{failed}</Failed></PublishBatchResult>".encode())

    return proxy.Fault(change_request=without_last, change_answer=with_failed)


def _entries(body: bytes) -> list[str]:
    """Return the ids of the entries of a batch, in their order."""
    fields = parse_qsl(body.decode(), keep_blank_values=True)
    return [value for name, value in fields if name.startswith(_ENTRY) and name.endswith(".Id")]


def _answer(successful: str, failed: str) -> str:
    result = f"<Successful>{successful}</Successful><Failed>{failed}</Failed>"
    return f"<PublishBatchResponse><PublishBatchResult>{result}</PublishBatchResult></PublishBatchResponse>"


_INJECTED: dict[str, Callable[[Fault, proxy.Request], proxy.Fault]] = {
    "lose request": _swallowed,
    "lose invocation": _swallowed,
    "lose answer": lambda *_: proxy.Fault(lose_answer=True),
    "double request": lambda *_: proxy.Fault(twice=True),
    "double invocation": lambda *_: proxy.Fault(twice=True),
    "delay request": lambda fault, _: proxy.Fault(delay_s=fault.seconds),
    "reorder": _reordered,
    "cut answer": lambda *_: proxy.Fault(cut_answer=True),
    "corrupt body": _corrupting,
    "partial batch": _partial,
    "reset connection": lambda *_: proxy.Fault(reset=True),
    "no answer": lambda *_: proxy.Fault(delay_s=_FOREVER_S),
    "clock skew": lambda fault, _: proxy.Fault(skew_s=fault.seconds),
}
"""What the proxy does for each kind; for the others it answers with an error."""
