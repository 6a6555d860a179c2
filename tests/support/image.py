"""Containers of the image that docker/build builds, to inspect files and run programs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

_WORK = Path(__file__).resolve().parents[2] / ".work" / "image"
SBOM = _WORK / "sbom.json"
BASE = "localhost/debian-python:bookworm"


def buildah(*arguments: str) -> list[str]:
    """Return a buildah command line with the storage options that docker/build uses."""
    places = ["--root", str(_WORK / "storage"), "--runroot", str(_WORK / "run"), "--storage-driver", "vfs"]
    return ["buildah", *places, *arguments]


class Container:
    """A working container of an image, with its file system mounted at `root`; remove it with `close`."""

    def __init__(self, image: str) -> None:
        self._name = _output_of(buildah("from", "--pull-never", image))
        self.root = Path(_output_of(buildah("mount", self._name)))
        self.config: dict[str, Any] = json.loads(_output_of(buildah("inspect", self._name)))["OCIv1"]["config"]

    def run(self, *command: str, environment: dict[str, str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        """Run a program in a chroot, without namespaces, as a user who owns no files; return the completed process."""
        variables = [f"--env={name}={value}" for name, value in environment.items()]
        line = buildah("run", "--isolation", "chroot", "--user", "65534:65534", *variables, self._name, "--", *command)
        with subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        ) as process:
            try:
                output, _ = process.communicate(timeout=timeout_s)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(line, process.returncode, output, "")

    def close(self) -> None:
        """Remove the container."""
        _output_of(buildah("rm", self._name))


def _output_of(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
