"""Opening the stores and the channel that a `LaunchSpec` selects, for a rank that runs as a local process."""

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
    """Open the stores of a run and the channel of one of its ranks; the caller closes them.

    Parameters
    ----------
    launch : LaunchSpec
    directory : Path
        The run directory.
    rank : int
        The rank whose channel to open.

    Raises
    ------
    SettingError
        The channel needs a stack and none is given.
    """
    backends = _open(launch, directory, rank)
    if launch.delay_s > 0:
        half = launch.delay_s / 2  # one half to the service, the other back
        backends.channel = Delayed(backends.channel, send_s=half, deliver_s=half)
    return backends


def _open(launch: LaunchSpec, directory: Path, rank: int) -> Backends:
    if launch.stack is not None:
        # Importing boto3 takes a third of a second; ranks of channel "local" do not need it.
        from fsd_inference.aws.backends import open_aws_backends  # noqa: PLC0415
        from fsd_inference.aws.clients import Clients  # noqa: PLC0415
        from fsd_inference.aws.stack import load_stack  # noqa: PLC0415

        stack = load_stack(Path(launch.stack))
        clients = Clients.of_stack(stack)
        return open_aws_backends(clients, stack, launch.channel, spec=launch.spec, rank=rank, lane=launch.lane)
    if launch.store is None:
        raise SettingError(f"channel {launch.channel!r} needs a stack; name its stack.json")
    store, settings = open_store(launch.store), launch.spec.settings
    # Each level of the launch tree has the start clock's time to begin listening.
    patience_s = settings.clocks.start_s * Tree(settings.workers, settings.branching).depth
    channel = LocalChannel(directory, rank, settings.workers, connect_timeout_s=patience_s)
    return Backends(plans=store, runs=store, channel=channel, release=store.close)
