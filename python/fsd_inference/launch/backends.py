"""Opens the stores and the channel of a rank that is a process, as its launch spec names them."""

from __future__ import annotations

from pathlib import Path

from fsd_inference.channels.delayed import Delayed
from fsd_inference.channels.local import LocalChannel
from fsd_inference.engine.rank import Backends
from fsd_inference.engine.tree import Tree
from fsd_inference.errors import SettingError
from fsd_inference.launch.spec import LaunchSpec
from fsd_inference.store.open import open_store


def open_backends(launch: LaunchSpec, directory: Path, rank: int) -> Backends:
    """Open what the ranks of a run share; the caller closes it."""
    backends = _open(launch, directory, rank)
    if launch.delay_s > 0:
        half = launch.delay_s / 2  # to the service, and from it
        backends.channel = Delayed(backends.channel, send_s=half, deliver_s=half)
    return backends


def _open(launch: LaunchSpec, directory: Path, rank: int) -> Backends:
    if launch.stack is not None:
        # boto3 takes a third of a second to import, which ranks over "local" need not wait for.
        from fsd_inference.aws.backends import open_aws_backends  # noqa: PLC0415
        from fsd_inference.aws.clients import Clients  # noqa: PLC0415
        from fsd_inference.aws.stack import load_stack  # noqa: PLC0415

        stack = load_stack(Path(launch.stack))
        clients = Clients.of_stack(stack)
        return open_aws_backends(clients, stack, launch.channel, spec=launch.spec, rank=rank, lane=launch.lane)
    if launch.store is None:
        raise SettingError(f"channel {launch.channel!r} needs a stack; name its stack.json")
    store, settings = open_store(launch.store), launch.spec.settings
    # Each level of the launch tree has the start clock's time until it listens.
    patience_s = settings.clocks.start_s * Tree(settings.workers, settings.branching).depth
    channel = LocalChannel(directory, rank, settings.workers, connect_timeout_s=patience_s)
    return Backends(plans=store, runs=store, channel=channel, release=store.close)
