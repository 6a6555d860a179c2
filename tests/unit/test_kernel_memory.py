"""Kernels that lack memory raise MemoryError, where a failed allocation in Rust would end the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.bounded_kernels import USES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space")


def outcome(use: str) -> str:
    command = [sys.executable, "-m", "tests.support.bounded_kernels", use]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("use", sorted(USES.keys() - {"second_layout"}))
def test_a_lack_of_memory_is_an_error(use: str) -> None:
    assert outcome(use) == "MemoryError: it takes more memory than there is"


def test_a_second_layout_of_weights_that_does_not_fit_is_done_without() -> None:
    assert outcome("second_layout") == "5000000.0"
