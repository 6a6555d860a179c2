"""Service endpoints (URLs): checks, and the proxy through which one is reached."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

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


def proxy_of(url: str) -> str | None:
    """Return the URL of the proxy that the environment names for an endpoint, or None if it is reached directly.

    The variables HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY count in either case; endpoints on loopback have no
    proxy whatever they say.

    Raises
    ------
    SettingError
        The proxy is not one for HTTP.
    """
    scheme = urlsplit(url).scheme
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or is_loopback(url) or proxy_bypass(urlsplit(url).netloc):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if urlsplit(proxy).scheme not in {"http", "https"}:
        raise SettingError(
            f"requests to {url} cannot go through a proxy by {urlsplit(proxy).scheme}: set {scheme.upper()}_PROXY or "
            "ALL_PROXY to http://HOST:PORT, or exempt the host with NO_PROXY"
        )
    return proxy
