"""obstore's view of a bucket, whose options are the caller's alone.

obstore also reads each option from a variable of the environment, and some of those take precedence over what it is
told: AWS_ENDPOINT_URL_S3 over ``endpoint`` (0.12.1). So every option that has a neutral value is given it, and the
variables of the others are hidden while the client is made. Options of the HTTP client come from the environment only
where none are given.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from obstore.store import S3Store as Bucket

from fsd_inference.endpoints import check_endpoint, is_loopback, is_plain
from fsd_inference.errors import SettingError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config, S3Credential

_NEUTRAL: S3Config = {
    "conditional_put": "etag",
    "disable_bulk_delete": False,
    "disable_tagging": False,
    "imdsv1_fallback": False,
    "request_payer": False,
    "s3_express": False,
    "skip_signature": False,
    "unsigned_payload": False,
    "virtual_hosted_style_request": False,
}
_WITHOUT_NEUTRAL_VALUE = (
    "AWS_CHECKSUM_ALGORITHM",
    "AWS_COPY_IF_NOT_EXISTS",
    "AWS_SERVER_SIDE_ENCRYPTION",
    "AWS_SSE_BUCKET_KEY_ENABLED",
    "AWS_SSE_CUSTOMER_KEY_BASE64",
    "AWS_SSE_KMS_KEY_ID",
)
_PROXY_OF_NOTHING = "http://127.0.0.1:9"
"""obstore cannot be told to use no proxy, only which hosts are reached without the one that it is told of."""

_ASK_AGAIN = timedelta(minutes=10)  # botocore renews keys that would expire within this time
_environment_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Credentials:
    """What signs the requests; spaces and line breaks around a key, as copying leaves them, are dropped.

    Raises
    ------
    SettingError
        A key holds what no header of a request can carry.
    """

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, what in (
            ("access_key_id", "the AWS access key's id"),
            ("secret_access_key", "the AWS secret access key"),
            ("session_token", "the AWS session token"),
        ):
            value = (getattr(self, name) or "").strip()
            if not (value.isascii() and value.isprintable()):
                raise SettingError(f"{what} holds a character that no request can carry; copy it again, whole")
            object.__setattr__(self, name, value or (None if name == "session_token" else ""))


CredentialSource = Credentials | Callable[[], Credentials]
"""Keys, or what returns those that are valid now, for keys that expire."""


def open_bucket(
    bucket: str,
    prefix: str = "",
    *,
    endpoint_url: str | None,
    region: str | None,
    credentials: CredentialSource | None,
    ca_bundle: str | None,
    timeout_s: float,
) -> Bucket:
    """Return a client for the objects of a bucket below a prefix, which repeats no request; see `S3Store`."""
    config = _NEUTRAL.copy()
    config["endpoint"] = config["aws_endpoint_url_s3"] = _endpoint(endpoint_url, region)
    if region is not None:
        config["region"] = region
    plain = is_plain(config["endpoint"])
    client: ClientConfig = {
        "allow_http": plain,
        "timeout": timedelta(seconds=timeout_s),
        "connect_timeout": timedelta(seconds=5),
    }
    if is_loopback(config["endpoint"]):
        client["proxy_url"] = _PROXY_OF_NOTHING
        client["proxy_excludes"] = urlsplit(config["endpoint"]).hostname or ""
    ca_bundle = ca_bundle or os.environ.get("AWS_CA_BUNDLE")
    if ca_bundle and not plain:
        client["root_certificate"] = _certificates(ca_bundle)
    with _variables_hidden(_WITHOUT_NEUTRAL_VALUE):
        return Bucket(
            bucket,
            prefix=prefix.strip("/") or None,
            config=config,
            credential_provider=None if credentials is None else lambda: _signer(credentials),
            client_options=client,
            retry_config={"max_retries": 0, "retry_timeout": timedelta(0)},
        )


def _endpoint(endpoint_url: str | None, region: str | None) -> str:
    if endpoint_url is not None:
        check_endpoint(endpoint_url)
        return endpoint_url.rstrip("/")
    region = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"https://s3.{region}.{domain}"


def _signer(source: CredentialSource) -> S3Credential:
    if isinstance(source, Credentials):
        keys, expires = source, None
    else:
        keys, expires = source(), datetime.now(UTC) + _ASK_AGAIN
    return {
        "access_key_id": keys.access_key_id,
        "secret_access_key": keys.secret_access_key,
        "token": keys.session_token,
        "expires_at": expires,
    }


@contextmanager
def _variables_hidden(names: tuple[str, ...]) -> Iterator[None]:
    """Take variables out of the environment for the length of a block; nothing is touched where none is set."""
    with _environment_lock:
        hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
        try:
            yield
        finally:
            os.environ.update(hidden)


def _certificates(path: str) -> bytes:
    try:
        found = Path(path).read_bytes()
    except OSError as error:
        raise SettingError(f"the certificates to trust (AWS_CA_BUNDLE) cannot be read: {error}") from error
    if b"-----BEGIN CERTIFICATE-----" not in found:
        raise SettingError(f"{path} (AWS_CA_BUNDLE) holds no certificates: give a file in PEM format")
    return found
