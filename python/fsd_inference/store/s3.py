"""An object store in an S3 bucket, which counts every request, retry and miss."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

import obstore
from obstore.exceptions import BaseError

from fsd_inference.config import Clocks, RetrySettings
from fsd_inference.error_codes import THROTTLED
from fsd_inference.errors import AccessDeniedError, StoreError
from fsd_inference.limits import KEYS_A_REQUEST, NEIGHBOUR_BYTES, PUT_BYTES
from fsd_inference.retrying import send
from fsd_inference.store.base import ObjectInfo, Store, StoredObject
from fsd_inference.store.bucket import CredentialSource, open_bucket
from fsd_inference.store.keys import check_key, check_prefix, check_range
from fsd_inference.threads import ThreadPool
from fsd_inference.usage import UsageMeter

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import S3Store as Bucket

T = TypeVar("T")

_PARALLEL_RANGES = 8
_WRITER = "fsd-writer"  # metadata: who wrote this version

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
# 409: another conditional write or a delete of the key was in progress; S3 asks the client to retry.
_TRANSIENT_STATUS = frozenset({408, 409, 429, 500, 502, 503, 504})
_TRANSIENT_CODE = frozenset({"RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable", "Throttling"})
_THROTTLED_STATUS = frozenset({429, 503})  # Slow Down and Service Unavailable (S3 error responses)
_CUT = re.compile(r"invalid \w+( \w+)? response|response body")  # obstore's text if a response was cut off
_WHOLE = "non-partial response"  # obstore's text if a range was requested and the whole object was returned


class S3Store(Store):
    """An object store of the objects of `bucket` below `prefix`.

    Parameters
    ----------
    bucket : str
    prefix : str, optional
        Folder of the bucket that all keys are relative to.
    endpoint_url : str, optional
        URL of an S3-compatible service to use instead of AWS. With plain http nothing is encrypted.
    region : str, optional
        AWS region; taken from the environment if not given.
    credentials : Credentials or callable, optional
        Access keys; the environment's (as on Lambda) if not given. A callable is called again every few minutes.
    ca_bundle : str, optional
        PEM file of certificates to trust in addition to the system's, such as those of a company's proxy;
        AWS_CA_BUNDLE if not given.
    retry : RetrySettings, optional
        Retries of requests that were throttled, failed, or lost their connection; by default, throttled ones are
        retried for as long as a run waits for a rank.
    timeout_s : float, optional
        Timeout of one request, its body included, in seconds.
    owner : str, optional
        Id of the AWS account that must own the bucket; S3 refuses all requests but lists if another one does.
    meter : UsageMeter, optional
        Counts ``s3.get``, ``s3.put``, ``s3.head``, ``s3.list`` and ``s3.delete``.

    Raises
    ------
    SettingError
        The endpoint is not a valid URL, or the certificates cannot be read.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        credentials: CredentialSource | None = None,
        ca_bundle: str | None = None,
        retry: RetrySettings | None = None,
        timeout_s: float = 120.0,
        owner: str | None = None,
        meter: UsageMeter | None = None,
    ) -> None:
        self.meter = meter or UsageMeter()
        self._retry = retry or RetrySettings(throttled_s=Clocks().stall_s)
        self._wait: Callable[[float], object] = time.sleep
        self._name = f"bucket {bucket}" + (f", folder {prefix.strip('/')}" if prefix.strip("/") else "")
        open_for = partial(
            open_bucket,
            bucket,
            prefix,
            endpoint_url=endpoint_url,
            region=region,
            credentials=credentials,
            ca_bundle=ca_bundle,
            timeout_s=timeout_s,
        )
        self._bucket = open_for(owner=owner)
        self._bucket_to_list: Callable[[], Bucket] = cache(open_for) if owner is not None else lambda: self._bucket
        self._sends_ranges = True
        self._threads = ThreadPool(_PARALLEL_RANGES, thread_name_prefix="s3-range")

    def retrying(self, retry: RetrySettings, wait: Callable[[float], object]) -> S3Store:
        other = copy(self)
        other._retry, other._wait = retry, wait
        return other

    def get(self, key: str) -> bytes | None:
        found = self.get_object(key)
        return None if found is None else found.data

    def get_object(self, key: str) -> StoredObject | None:
        check_key(key)

        def call() -> StoredObject:
            answer = obstore.get(self._bucket, key)
            return StoredObject(answer.bytes().to_bytes(), answer.meta["e_tag"] or "")

        try:
            return self._request("s3.get", f"get {key}", call, expected={404})
        except _Refused:
            self.meter.miss()
            return None

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        check_key(key)
        check_range(key, start, length)
        if length == 0:  # HTTP has no empty ranges; an absent object must still return None
            return None if self.stat(key) is None else b""
        if self._sends_ranges:
            try:
                return self._request(
                    "s3.get",
                    f"get a range of {key}",
                    lambda: obstore.get_range(self._bucket, key, start=start, length=length).to_bytes(),
                    expected={404, 416},
                )
            except _Refused as refused:
                if refused.status == 416:  # the range starts at or past the end
                    return b""
                self.meter.miss()
                return None
            except _WholeAnswerError:
                self._sends_ranges = False
        whole = self.get(key)
        return None if whole is None else whole[start : start + length]

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes] | None:
        check_key(key)
        for start, length in ranges:
            check_range(key, start, length)
        spans = _spans(ranges)
        if not spans:
            return None if self.stat(key) is None else [b""] * len(ranges)
        if not self._sends_ranges:
            whole = self.get(key)
            return None if whole is None else [whole[start : start + length] for start, length in ranges]
        if len(spans) == 1:
            bodies = [self.get_range(key, *spans[0])]
        else:
            bodies = list(self._threads.map(lambda span: self.get_range(key, *span), spans))
        pieces = []
        for start, length in ranges:
            piece = b""
            for (span_start, span_length), body in zip(spans, bodies, strict=True):
                if body is None:
                    return None
                if length and span_start <= start < span_start + span_length:
                    piece = body[start - span_start : start - span_start + length]
            pieces.append(piece)
        return pieces

    def put(self, key: str, data: bytes) -> str:
        self._check_write(key, data)
        return self._request(
            "s3.put",
            f"put {key}",
            lambda: obstore.put(self._bucket, key, data, use_multipart=False)["e_tag"] or "",
        )

    def put_if_absent(self, key: str, data: bytes) -> str | None:
        return self._conditional_put(key, data, etag=None)

    def put_if_match(self, key: str, data: bytes, etag: str) -> str | None:
        return self._conditional_put(key, data, etag=etag)

    def stat(self, key: str) -> ObjectInfo | None:
        check_key(key)
        try:
            meta = self._request("s3.head", f"head {key}", lambda: obstore.head(self._bucket, key), expected={404})
        except _Refused:
            self.meter.miss()
            return None
        return ObjectInfo(key, meta["size"], meta["e_tag"] or "", meta["last_modified"])

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        return self._list(prefix)

    def _list(self, prefix: str) -> Iterator[ObjectInfo]:
        last: str | None = None
        page_is_full = True
        while page_is_full:
            page = self._request("s3.list", f"list {prefix or 'all objects'}", partial(self._page, prefix, last))
            for meta in page:
                last = meta["path"]
                yield ObjectInfo(last, meta["size"], meta["e_tag"] or "", meta["last_modified"])
            page_is_full = len(page) == KEYS_A_REQUEST

    def _page(self, prefix: str, after: str | None) -> Sequence[ObjectMeta]:
        """Return the page of objects after key `after`, at the cost of one request.

        obstore would request the next page only if more than a full page were taken.
        """
        return next(
            iter(obstore.list(self._bucket_to_list(), prefix or None, offset=after, chunk_size=KEYS_A_REQUEST)), ()
        )

    def delete(self, keys: Iterable[str]) -> None:
        remaining = iter(keys)
        while batch := list(islice(remaining, KEYS_A_REQUEST)):
            for key in batch:
                check_key(key)
            what = f"delete {batch[0]}" + (f" and {len(batch) - 1} more" if len(batch) > 1 else "")
            self._request("s3.delete", what, partial(obstore.delete, self._bucket, batch))

    def close(self) -> None:
        self._threads.shutdown()

    def _check_write(self, key: str, data: bytes) -> None:
        check_key(key)
        if len(data) > PUT_BYTES:
            raise StoreError(
                f"cannot put {key} in {self._name}: {len(data)} bytes are more than the {PUT_BYTES} of one PUT",
                retryable=False,
            )

    def _conditional_put(self, key: str, data: bytes, *, etag: str | None) -> str | None:
        """Write if the object is absent (`etag` None) or still version `etag`; return None if the condition fails.

        If the response to a successful write is lost, its retry is refused because of the object just written. Each
        conditional write therefore stores a unique writer id as metadata, and a refused retry compares it.
        """
        self._check_write(key, data)
        writer = uuid4().hex

        def call() -> str:
            answer = obstore.put(
                self._bucket,
                key,
                data,
                attributes={_WRITER: writer},
                mode="create" if etag is None else {"e_tag": etag},
                use_multipart=False,
            )
            return answer["e_tag"] or ""

        condition = "if absent" if etag is None else "if unchanged"
        expected = {412} if etag is None else {404, 412}
        try:
            return self._request("s3.put", f"put {key} {condition}", call, expected=expected)
        except _Refused as refused:
            return self._version_by(writer, key) if refused.was_repeat else None

    def _version_by(self, writer: str, key: str) -> str | None:
        """Return the tag of the current version if `writer` wrote it, and None otherwise."""

        def call() -> tuple[str | None, str]:
            answer = obstore.get(self._bucket, key, options={"head": True})
            return answer.attributes.get(_WRITER), answer.meta["e_tag"] or ""

        try:
            found, etag = self._request("s3.head", f"head {key}", call, expected={404})
        except _Refused:
            self.meter.miss()
            return None
        return etag if found == writer else None

    def _request(self, kind: str, what: str, call: Callable[[], T], *, expected: Iterable[int] = ()) -> T:
        """Send a request, with retries; raise `_Refused` for an `expected` status."""

        def classify(error: Exception, is_repeat: bool) -> StoreError:
            failure = Failure.of(error)
            if _WHOLE in failure.text:
                raise _WholeAnswerError from None
            if failure.status in expected and failure.code != "NoSuchBucket":
                raise _Refused(failure.status, was_repeat=is_repeat) from None
            return self._error(what, failure)

        return send(
            kind,
            call,
            meter=self.meter,
            retry=self._retry,
            errors=(BaseError, OSError),
            classify=classify,
            wait=self._wait,
            is_throttled=lambda error: Failure.of(error).is_throttled,
        )

    def _error(self, what: str, failure: Failure) -> StoreError:
        message = f"cannot {what} in {self._name}: {failure.text}"
        if failure.status in {401, 403} or "AccessDenied" in failure.text:
            if what.startswith(("get ", "head ")):
                message += (
                    "; the role may not list the bucket: grant s3:ListBucket (S3 answers 403 instead of 404 for absent "
                    "keys otherwise), or it may not read the object: grant s3:GetObject"
                )
            return AccessDeniedError(message)
        return StoreError(message, retryable=failure.is_transient)


class _Refused(Exception):  # noqa: N818 -- an answer that the caller handles, not an error
    """The service answered with one of the error statuses that the caller handles."""

    def __init__(self, status: int, *, was_repeat: bool) -> None:
        super().__init__(status)
        self.status = status
        self.was_repeat = was_repeat


class _WholeAnswerError(Exception):
    """The service returned the whole object instead of the requested range, as some S3-compatible services do."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed request, parsed from obstore's error text: HTTP status (0 if no response), S3 error code, one line."""

    status: int
    code: str
    text: str

    @classmethod
    def of(cls, error: Exception) -> Failure:
        text = str(error).partition("\n\nDebug source:")[0]
        status = _STATUS.search(text)
        code = _CODE.search(text)
        if status is None:
            return cls(0, "" if code is None else code[1], " ".join(text.split()))
        known_code = "" if code is None else code[1]
        return cls(int(status[1]), known_code, f"the service answered {status[1]} {known_code}".rstrip())

    @property
    def is_throttled(self) -> bool:
        """Whether S3 asks for fewer requests; its answer to a HEAD has the status only."""
        return self.status in _THROTTLED_STATUS or any(code in self.text for code in THROTTLED)

    @property
    def is_transient(self) -> bool:
        if self.status == 0:
            was_cut = _CUT.search(self.text) is not None
            return was_cut or "HTTP error" in self.text or any(code in self.text for code in _TRANSIENT_CODE)
        return self.status in _TRANSIENT_STATUS or self.code in _TRANSIENT_CODE


def _spans(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the (start, length) ranges to fetch: all non-empty ranges, with nearby ones merged."""
    spans: list[tuple[int, int]] = []
    for start, length in sorted(ranges):
        if length == 0:
            continue
        if spans and start <= sum(spans[-1]) + NEIGHBOUR_BYTES:
            first = spans[-1][0]
            spans[-1] = (first, max(sum(spans[-1]), start + length) - first)
        else:
            spans.append((start, length))
    return spans
