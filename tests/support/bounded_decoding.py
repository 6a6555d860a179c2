"""A process that decodes a block, given on stdin, with little memory, and prints the error's class."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from fsd_inference.kernels import decode_block

_MORE_BYTES = 100_000_000


def main() -> None:
    block = sys.stdin.buffer.read()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + _MORE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        decode_block(block)
    except (MemoryError, ValueError) as error:
        sys.stdout.write(type(error).__name__)


if __name__ == "__main__":
    main()
