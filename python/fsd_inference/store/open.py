"""Opening a store by its URL; the only place that chooses between the implementations."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from fsd_inference.config import RetrySettings
from fsd_inference.errors import SettingError
from fsd_inference.store.base import Store
from fsd_inference.store.directory import DirectoryStore
from fsd_inference.store.memory import MemoryStore
from fsd_inference.usage import UsageMeter

if TYPE_CHECKING:
    from fsd_inference.store.bucket import CredentialSource


def open_store(
    url: str,
    *,
    endpoint_url: str | None = None,
    region: str | None = None,
    credentials: CredentialSource | None = None,
    ca_bundle: str | None = None,
    retry: RetrySettings | None = None,
    meter: UsageMeter | None = None,
) -> Store:
    """Open the store at a URL: ``memory://`` (new and empty), ``file:///DIRECTORY`` or ``s3://BUCKET[/FOLDER]``.

    Parameters
    ----------
    url : str
    endpoint_url, region, credentials, ca_bundle, retry : optional
        Used for ``s3://`` only; see `S3Store`.
    meter : UsageMeter, optional
        Counts the store's requests; a new meter if not given.

    Raises
    ------
    SettingError
        The URL does not name a store.
    """
    parts = urlsplit(url)
    if parts.scheme == "memory" and not parts.netloc and not parts.path:
        return MemoryStore(meter=meter)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return DirectoryStore(unquote(parts.path), meter=meter)
    if parts.scheme == "s3" and parts.netloc and not parts.query:
        from fsd_inference.store.s3 import S3Store  # noqa: PLC0415 - loads obstore, which other stores do not need

        return S3Store(
            parts.netloc,
            parts.path,
            endpoint_url=endpoint_url,
            region=region,
            credentials=credentials,
            ca_bundle=ca_bundle,
            retry=retry,
            meter=meter,
        )
    raise SettingError(f"{url!r} is not the URL of a store: use memory://, file:///DIRECTORY or s3://BUCKET/FOLDER")
