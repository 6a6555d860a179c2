"""Human-readable formatting of sizes, times and costs."""

from __future__ import annotations


def bytes_text(size: float) -> str:
    """Format a size in bytes, in powers of 1000: ``1.2 MB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def seconds_text(seconds: float) -> str:
    """Format a time in seconds: ``0.042 s``, ``12.3 s``."""
    return f"{seconds:.3f} s" if seconds < 1 else f"{seconds:.1f} s"


def usd_text(usd: float) -> str:
    """Format an amount of dollars with four significant digits: ``0.02150``."""
    return f"{usd:#,.4g}"
