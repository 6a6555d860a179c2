"""Values that a shell proposes for the arguments of commands."""

from __future__ import annotations

import os
from pathlib import Path

_MANIFESTS = ("network.json", "manifest.json")


def networks(incomplete: str) -> list[str]:
    """Return the directories of networks and shards that a path may be completed to, and, with "/", other directories.

    Files are not opened: a shell waits for this at each Tab.
    """
    parent, start = os.path.split(incomplete)
    try:
        entries = sorted(os.scandir(Path(parent or ".").expanduser()), key=lambda entry: entry.name)
    except OSError:
        return []
    found = []
    for entry in entries:
        if entry.name.startswith(start) and entry.name.startswith(".") == start.startswith(".") and entry.is_dir():
            is_network = any(Path(entry.path, name).is_file() for name in _MANIFESTS)
            found.append(os.path.join(parent, entry.name) + ("" if is_network else "/"))  # noqa: PTH118 - keeps "./"
    return found
