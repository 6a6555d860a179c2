"""Checks of object keys: every store accepts those that are valid as file names, URL paths and S3 keys alike."""

from __future__ import annotations

import re

from fsd_inference.errors import StoreError

_KEY = re.compile(r"[A-Za-z0-9._-]{1,200}(/[A-Za-z0-9._-]{1,200})*")
_KEY_CHARACTERS = 900  # S3 allows 1,024 bytes; the rest is left for the store's own prefix


def check_key(key: str) -> None:
    """Raise `StoreError` unless `key` is a valid object key."""
    named_dots = any(part in {".", ".."} for part in key.split("/"))
    if named_dots or len(key) > _KEY_CHARACTERS or _KEY.fullmatch(key) is None:
        raise StoreError(
            f"{key[:100]!r} is not a valid key: use '/'-separated parts of A-Z a-z 0-9 . _ - (not '.' or '..'), "
            f"at most 200 characters each and {_KEY_CHARACTERS} in total",
            retryable=False,
        )


def check_prefix(prefix: str) -> None:
    """Raise `StoreError` unless `prefix` is empty or the name of a folder, ending with '/'."""
    if prefix == "":
        return
    if not prefix.endswith("/"):
        raise StoreError(f"{prefix[:100]!r} is not a folder: end the prefix with '/'", retryable=False)
    check_key(prefix[:-1])


def check_range(key: str, start: int, length: int) -> None:
    """Raise `StoreError` if `start` or `length` is negative."""
    if start < 0 or length < 0:
        raise StoreError(f"cannot read {length} bytes from {start} of {key}: neither may be negative", retryable=False)
