"""Stacks on this machine: one emulator each, brought up and taken down with its resources."""

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
    """Make a stack at `endpoint_url`, or on an emulator started for it, which ends with this process if `tied`.

    `on_wait` is called with what is waited for, if that takes long.

    Raises
    ------
    StackError
        The emulator did not start, or something could not be made; nothing is left behind.
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
    """Delete a stack's resources; the emulator that was started for it goes with all it holds."""
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
    """Bring a stack up on an emulator for the length of a `with` block, or of this process."""
    stack = bring_up(settings, tied=True)
    try:
        yield stack
    finally:
        take_down(stack)
