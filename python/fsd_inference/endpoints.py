"""Checks of service endpoints (URLs)."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from fsd_inference.errors import SettingError


def check_endpoint(url: str) -> None:
    """Raise `SettingError` unless `url` is ``http://HOST[:PORT]`` or ``https://HOST[:PORT]``, without user or query."""
    try:
        parts = urlsplit(url)
        is_endpoint = (
            parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            and parts.port != 0  # raises ValueError for an invalid port
            and parts.username is None
            and not (parts.query or parts.fragment)
            and url.isprintable()
            and " " not in url
        )
    except ValueError:
        is_endpoint = False
    if not is_endpoint:
        raise SettingError(f"{url!r} is not an http(s) URL of a service: use http://HOST:PORT or https://HOST")


def is_plain(url: str) -> bool:
    """Return whether an endpoint uses plain HTTP, so that requests are not encrypted."""
    return urlsplit(url).scheme == "http"


def is_loopback(url: str) -> bool:
    """Return whether an endpoint is on this machine's loopback interface, which a proxy cannot reach."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
