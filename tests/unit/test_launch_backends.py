"""Stores and channels that the processes of a local run open."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from fsd_inference.channels.base import Frame, Kind
from fsd_inference.config import Clocks, RunSettings
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import ChannelError
from fsd_inference.launch.backends import open_backends
from fsd_inference.launch.spec import LaunchSpec


def test_a_send_waits_for_as_many_start_clocks_as_the_launch_tree_is_deep(tmp_path: Path) -> None:
    clocks = Clocks(start_s=0.2)
    settings = RunSettings(workers=5, branching=1, clocks=clocks)
    spec = RunSpec("a" * 32, 0, "b" * 32, samples=1, features=1, deadline=1e12, settings=settings)
    backends = open_backends(LaunchSpec(spec, "local", store=(tmp_path / "store").as_uri()), tmp_path, 0)
    began = time.monotonic()
    with pytest.raises(ChannelError, match="rank 4 does not listen"):
        backends.channel.send([Frame(Kind.DATA, 0, 0, (4,), b"frame")]).result(30)
    assert time.monotonic() - began >= 5 * 0.2
    backends.close()
