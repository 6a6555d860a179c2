"""obstore clients for S3 buckets, configured by arguments alone and never by environment variables.

obstore also reads each option from an environment variable, and some variables override explicit arguments:
AWS_ENDPOINT_URL_S3 overrides ``endpoint`` (0.12.1). Every option with a neutral value is therefore set explicitly, and
the variables of the other options are hidden while the client is created. Options of the HTTP client come from the
environment only if none are given.
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

from fsd_inference.endpoints import check_endpoint, is_plain, proxy_of
from fsd_inference.errors import SettingError
from fsd_inference.limits import DIRECTORY_BUCKET

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
_OWNER = "x-amz-expected-bucket-owner"
_PROXY_OF_NOTHING = "http://127.0.0.1:9"
"""A dummy proxy: obstore has no option for "no proxy", only a list of hosts that bypass the configured one."""

_ASK_AGAIN = timedelta(minutes=10)  # botocore renews keys that would expire within this time
_environment_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Credentials:
    """AWS access keys that sign requests; white space around a key, left over from copy and paste, is stripped.

    Raises
    ------
    SettingError
        A key contains characters that are not allowed in an HTTP header.
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
                raise SettingError(f"{what} contains a character that HTTP headers do not allow; copy it again in full")
            object.__setattr__(self, name, value or (None if name == "session_token" else ""))


CredentialSource = Credentials | Callable[[], Credentials]
"""Fixed access keys, or a callable that returns the currently valid ones, for keys that expire."""


def open_bucket(
    bucket: str,
    prefix: str = "",
    *,
    endpoint_url: str | None,
    region: str | None,
    credentials: CredentialSource | None,
    ca_bundle: str | None,
    timeout_s: float,
    owner: str | None = None,
) -> Bucket:
    """Return a client for the objects of a bucket below a prefix, without retries of its own; see `S3Store`.

    With `owner`, the client cannot list: obstore sends the owner's header unsigned in requests for lists (0.12.1), and
    S3 refuses them then.
    """
    if bucket.endswith(DIRECTORY_BUCKET):
        raise SettingError(
            f"bucket {bucket} is a directory bucket (S3 Express One Zone), which stacks cannot use: name a "
            "general purpose bucket"
        )
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
    if owner is not None:
        client["default_headers"] = {_OWNER: owner}
    # Where none is given, the HTTP client would take one from the environment by rules of its own.
    client["proxy_url"] = proxy_of(config["endpoint"]) or _PROXY_OF_NOTHING
    if client["proxy_url"] == _PROXY_OF_NOTHING:
        client["proxy_excludes"] = urlsplit(config["endpoint"]).hostname or ""
    ca_bundle = ca_bundle or os.environ.get("AWS_CA_BUNDLE")
    if ca_bundle and not plain:
        client["root_certificate"] = read_certificates(ca_bundle)
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
    """Remove variables from the environment for the duration of a `with` block."""
    with _environment_lock:
        hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
        try:
            yield
        finally:
            os.environ.update(hidden)


def read_certificates(path: str) -> bytes:
    """Return the certificates in a PEM file; raise `SettingError` if it cannot be read or has none."""
    try:
        found = Path(path).read_bytes()
    except OSError as error:
        raise SettingError(f"the trusted certificates (AWS_CA_BUNDLE) cannot be read: {error}") from error
    if b"-----BEGIN CERTIFICATE-----" not in found:
        raise SettingError(f"{path} (AWS_CA_BUNDLE) contains no certificates: give a file in PEM format")
    return found
