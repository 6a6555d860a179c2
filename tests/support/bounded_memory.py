"""A process that runs `fsd` commands with little memory: argument lists as JSON on stdin, code and stderr on stdout.

Its argument is the number of bytes that it may take beyond those of its libraries.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import resource
import sys
from pathlib import Path

from fsd_inference.cli.main import run

_LIBRARIES = ("onnx.reference", "safetensors.numpy", "scipy.sparse", "fsd_inference.network", "fsd_inference.session")


def main() -> None:
    for library in _LIBRARIES:
        importlib.import_module(library)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    said = []
    for command in json.load(sys.stdin):
        with contextlib.redirect_stderr(io.StringIO()) as errors, contextlib.redirect_stdout(io.StringIO()):
            code = run(command)
        said.append((code, errors.getvalue()))
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main()
