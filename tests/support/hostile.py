"""JSON documents in which one value is replaced by one that a reader may not expect, or is removed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

HOSTILE: tuple[Any, ...] = (
    None,
    True,
    "",
    "a\0b",
    "\x1b[2J",
    "../../x",
    -1,
    0,
    2**31,
    2**63,
    10**40,
    10**400,
    -0.5,
    1e15,
    1e308,
    float("inf"),
    float("nan"),
    [],
    {},
    [[[]]],
    {"a": {"b": 1}},
)


def places(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield where the values of a JSON document are; of a list, its first two."""
    yield path
    children: Iterator[tuple[str | int, object]] = iter(())
    if isinstance(value, dict):
        children = iter(value.items())
    elif isinstance(value, list):
        children = iter(enumerate(value[:2]))
    for key, child in children:
        yield from places(child, (*path, key))


def changed(value: object) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield documents with one value replaced or, in objects, removed, as JSON text with the place of the change."""
    for place in list(places(value)):
        if not place:
            continue
        *above, last = place
        for hostile in (*HOSTILE, ...):
            document: Any = deepcopy(value)
            parent = document
            for key in above:
                parent = parent[key]
            if hostile is ...:
                del parent[last]
            else:
                parent[last] = hostile
            yield place, json.dumps(document)
