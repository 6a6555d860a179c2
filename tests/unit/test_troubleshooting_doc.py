"""docs/troubleshooting.md lists every error, in the class hierarchy, with its exit code and retryability."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from fsd_inference import errors
from fsd_inference.cli.failures import explain

DOC = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()
ENTRY = re.compile(r"^( *)- \*\*`(\w+)`\*\* \(exit (\d), (again|not again)\): ", re.MULTILINE)
KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.FsdError)]


def test_every_error_has_an_entry() -> None:
    """Once, indented below its base, with its exit code and whether trying again can help."""
    entries: dict[str, tuple[str | None, int, bool]] = {}
    above: list[str] = []
    for indent, name, code, again in ENTRY.findall(DOC):
        del above[len(indent) // 2 :]
        assert name not in entries
        entries[name] = above[-1] if above else None, int(code), again == "again"
        above.append(name)
    expected = {
        kind.__name__: (
            None if kind is errors.FsdError else kind.__bases__[0].__name__,
            explain(kind("why")).code,
            kind.retryable,
        )
        for kind in KINDS
    }
    assert entries == expected
