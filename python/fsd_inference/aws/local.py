"""Creation and deletion of stacks on an emulator that is started for each, or at an endpoint of the user's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fsd_inference.aws.clients import Clients
from fsd_inference.aws.emulator import start_emulator, stop_emulator
from fsd_inference.aws.provision import StackSettings, create_stack, delete_stack
from fsd_inference.stack_description import StackSpec


def bring_up(
    settings: StackSettings,
    *,
    endpoint_url: str | None = None,
    region: str | None = None,
    tied: bool = False,
    on_wait: Callable[[str], None] = lambda _: None,
) -> StackSpec:
    """Create a stack at an endpoint, or on an emulator started for it.

    Parameters
    ----------
    settings : StackSettings
    endpoint_url : str, optional
        Where to create the stack; an emulator is started if not given.
    region : str, optional
        See `Clients`.
    tied : bool, optional
        Whether a started emulator ends when this process does.
    on_wait : callable, optional
        Called once with a progress message if the emulator takes long to start.

    Raises
    ------
    StackError
        The emulator did not start, or a resource could not be created; nothing is left behind.
    """
    emulator = start_emulator(tied=tied, on_wait=on_wait) if endpoint_url is None else None
    clients = (
        Clients(endpoint_url, region) if emulator is None else Clients(emulator.endpoint_url, region, emulated=True)
    )
    try:
        return create_stack(clients, settings, emulator=emulator)
    except BaseException:
        if emulator is not None:
            stop_emulator(emulator)
        raise
    finally:
        clients.close()


def take_down(stack: StackSpec) -> None:
    """Delete a stack: stop the emulator that was started for it, with all its data, or delete each resource."""
    if stack.emulator is not None:
        stop_emulator(stack.emulator)
        return
    clients = Clients.of_stack(stack)
    try:
        delete_stack(clients, stack)
    finally:
        clients.close()


@contextmanager
def temporary_stack(settings: StackSettings) -> Iterator[StackSpec]:
    """Create a stack on an emulator for the duration of a `with` block, and at most for this process's lifetime."""
    stack = bring_up(settings, tied=True)
    try:
        yield stack
    finally:
        take_down(stack)
