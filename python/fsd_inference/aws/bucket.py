"""The buckets of a stack: stores that upload files in parts, over lines of any speed."""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Callable
from concurrent.futures import as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from botocore.exceptions import ClientError, HTTPClientError

from fsd_inference.aws.sdk import SDK_ERRORS, text_of, was_broken_off
from fsd_inference.config import RetrySettings
from fsd_inference.errors import AccessDeniedError, FsdError, StoreError
from fsd_inference.limits import PART_BYTES
from fsd_inference.retrying import send
from fsd_inference.store.bucket import CredentialSource
from fsd_inference.store.keys import check_key
from fsd_inference.store.s3 import Failure, S3Store
from fsd_inference.usage import UsageMeter

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedMultipartUploadTypeDef, CompletedPartTypeDef

T = TypeVar("T")


class StackBucket(S3Store):
    """An `S3Store` whose `put_file` has no timeout for whole requests, and continues uploads that were broken off.

    obstore, with which it does everything else, limits the time of a whole request only, and cannot continue an upload.

    Parameters
    ----------
    bucket, folder, endpoint_url, region, credentials, ca_bundle, owner, meter, retry
        See `S3Store`.
    uploads : callable
        Returns the client that sends files; called when the first file is sent.
    """

    def __init__(
        self,
        bucket: str,
        folder: str = "",
        *,
        uploads: Callable[[], S3Client],
        endpoint_url: str | None,
        region: str | None,
        credentials: CredentialSource,
        ca_bundle: str | None,
        owner: str | None,
        meter: UsageMeter | None,
        retry: RetrySettings | None,
    ) -> None:
        super().__init__(
            bucket,
            folder,
            endpoint_url=endpoint_url,
            region=region,
            credentials=credentials,
            ca_bundle=ca_bundle,
            owner=owner,
            meter=meter,
            retry=retry,
        )
        self._uploads = uploads
        self._folder = folder.strip("/")
        self._where: dict[str, Any] = {"Bucket": bucket} | ({} if owner is None else {"ExpectedBucketOwner": owner})

    def put_file(self, key: str, path: Path, advance: Callable[[int], None]) -> int:
        """Upload a file, in parts if it is larger than one; see `Store.put_file`.

        Parts of an unfinished upload of the same content are not sent again.
        """
        check_key(key)
        size = path.stat().st_size
        if size <= PART_BYTES:
            data = path.read_bytes()
            self._send("s3.put", f"put {key}", self._uploads().put_object, key, data, advance)
            return size
        parts = [
            _Part(number, start, min(PART_BYTES, size - start))
            for number, start in enumerate(range(0, size, PART_BYTES), 1)
        ]
        try:
            return self._put_parts(key, path, parts, advance)
        except _NoSuchUploadError:
            info = self.stat(key)
            if info is not None and info.size == size:  # another push has continued this upload and completed it
                return 0
            raise StoreError(f"the upload of {key} to {self._name} was aborted by someone else; push again") from None

    def _put_parts(self, key: str, path: Path, parts: list[_Part], advance: Callable[[int], None]) -> int:
        upload, arrived = self._unfinished(key, path, parts) or (self._begin(key), {})
        missing = [part for part in parts if part.number not in arrived]
        advance(sum(part.length for part in parts if part.number in arrived))

        def put(part: _Part) -> CompletedPartTypeDef:
            what, data = f"put part {part.number} of {key}", part.read(path)
            answer = self._send(
                "s3.put",
                what,
                self._uploads().upload_part,
                key,
                data,
                advance,
                UploadId=upload,
                PartNumber=part.number,
            )
            return {"PartNumber": part.number, "ETag": answer["ETag"], "ChecksumCRC32": _crc32(data)}

        futures = [self._threads.submit(put, part) for part in missing]
        try:
            for future in as_completed(futures):
                done = future.result()
                arrived[done["PartNumber"]] = done
        finally:
            for future in futures:
                future.cancel()
        complete: CompletedMultipartUploadTypeDef = {"Parts": [arrived[part.number] for part in parts]}
        self._ask(
            "s3.put",
            f"complete the upload of {key}",
            lambda: self._uploads().complete_multipart_upload(
                **self._object(key), UploadId=upload, MultipartUpload=complete
            ),
        )
        return sum(part.length for part in missing)

    def _begin(self, key: str) -> str:
        answer = self._ask(
            "s3.put",
            f"begin the upload of {key}",
            lambda: self._uploads().create_multipart_upload(**self._object(key), ChecksumAlgorithm="CRC32"),
        )
        return answer["UploadId"]

    def _unfinished(
        self, key: str, path: Path, parts: list[_Part]
    ) -> tuple[str, dict[int, CompletedPartTypeDef]] | None:
        """Return the id and the parts of an unfinished upload of this content, or None; abort one of other content."""
        client, name = self._uploads(), self._object(key)
        listed = self._ask(
            "s3.list",
            f"list the unfinished uploads of {key}",
            lambda: client.list_multipart_uploads(**self._where, Prefix=name["Key"]),
            action="s3:ListBucketMultipartUploads",
        )
        uploads = [upload for upload in listed.get("Uploads", []) if upload["Key"] == name["Key"]]
        if not uploads:
            return None
        upload = max(uploads, key=lambda upload: upload["Initiated"])["UploadId"]
        # One response lists 1,000 parts, of 16 GB; of a larger file, the others are sent again.
        answer = self._ask(
            "s3.list",
            f"list the parts of {key} that have arrived",
            lambda: client.list_parts(**name, UploadId=upload),
            action="s3:ListMultipartUploadParts",
        )
        wanted = {part.number: part for part in parts}
        arrived: dict[int, CompletedPartTypeDef] = {}
        for there in answer.get("Parts", []):
            number, part = there["PartNumber"], wanted.get(there["PartNumber"])
            if part is None or there["Size"] != part.length or there.get("ChecksumCRC32") != part.crc32(path):
                self._ask(
                    "s3.delete",
                    f"abort an upload of {key} that had other content",
                    lambda: client.abort_multipart_upload(**name, UploadId=upload),
                    action="s3:AbortMultipartUpload",
                )
                return None
            arrived[number] = {"PartNumber": number, "ETag": there["ETag"], "ChecksumCRC32": there["ChecksumCRC32"]}
        return upload, arrived

    def _object(self, key: str) -> dict[str, Any]:
        return {**self._where, "Key": f"{self._folder}/{key}" if self._folder else key}

    def _send(
        self,
        kind: str,
        what: str,
        call: Callable[..., Any],
        key: str,
        data: bytes,
        advance: Callable[[int], None],
        **arguments: Any,
    ) -> Any:
        """Send the content of an object or a part, with its checksum."""
        body, checksum = _Body(data, advance), _crc32(data)

        def again() -> Any:
            body.seek(0)
            return call(**self._object(key), Body=body, ChecksumCRC32=checksum, **arguments)

        return self._ask(kind, what, again)

    def _ask(self, kind: str, what: str, call: Callable[[], T], *, action: str = "s3:PutObject") -> T:
        """Send a request through the SDK, with retries; its failures are those of the store."""

        def classify(error: Exception, _: bool) -> StoreError:
            if isinstance(error, ClientError):
                code = error.response.get("Error", {}).get("Code", "")
                if code == "NoSuchUpload":
                    raise _NoSuchUploadError from None
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                failed = self._error(what, Failure(status, code, f"the service answered {status} {code}"))
                if isinstance(failed, AccessDeniedError):
                    return AccessDeniedError(f"{failed}; the caller's policy must allow {action}")
                return failed
            cause = error.kwargs.get("error") if isinstance(error, HTTPClientError) else None
            if isinstance(cause, FsdError):  # `advance` ended the upload
                raise cause from None
            return StoreError(f"cannot {what} in {self._name}: {text_of(error)}", retryable=was_broken_off(error))

        return send(kind, call, meter=self.meter, retry=self._retry, errors=SDK_ERRORS, classify=classify)


class _NoSuchUploadError(Exception):
    """The upload was completed or aborted meanwhile."""


class _Part(NamedTuple):
    """A part of a file: its number from 1, its first byte, and its length in bytes."""

    number: int
    start: int
    length: int

    def read(self, path: Path) -> bytes:
        """Return the content of the part."""
        with path.open("rb") as file:
            file.seek(self.start)
            return file.read(self.length)

    def crc32(self, path: Path) -> str:
        """Return the checksum of the part, as S3 writes it."""
        return _crc32(self.read(path))


class _Body(io.BytesIO):
    """Bytes to send that tell how far reading has advanced.

    The SDK sends a file in small blocks, each within the stall clock, but bytes at once.
    """

    def __init__(self, data: bytes, advance: Callable[[int], None]) -> None:
        super().__init__(data)
        self._length = len(data)
        self._advance = advance

    def __len__(self) -> int:  # the SDK would otherwise seek the end
        return self._length

    def read(self, size: int | None = -1, /) -> bytes:
        """Read, and report how many bytes were read."""
        piece = super().read(size)
        self._advance(len(piece))
        return piece

    def seek(self, position: int, whence: int = 0, /) -> int:
        """Move, and report by how many bytes."""
        before = self.tell()
        now = super().seek(position, whence)
        self._advance(now - before)
        return now


def _crc32(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
