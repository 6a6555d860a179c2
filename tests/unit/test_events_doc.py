"""docs/events.md lists exactly the fields of events and statuses."""

from __future__ import annotations

import re
from pathlib import Path

from fsd_inference.aws.events import RunEvent
from fsd_inference.aws.status import RunStatus
from fsd_inference.config import RunSettings
from fsd_inference.engine.spec import RunSpec

DOC = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
ID = "0123456789abcdef" * 2


def table(heading: str) -> set[str]:
    """The names in the first column of the table below a heading."""
    section = DOC.split(heading, 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}


def test_the_event() -> None:
    event = RunEvent(RunSpec(ID, 0, ID, 1, 1, 0.0, RunSettings()), "object", 512)
    assert table("## 2. The coordinator's event") == event.to_json().keys()


def test_the_status() -> None:
    status = RunStatus(ID, 0, ID, "object", 1, 1, "waiting", 0.0)
    assert table("## 3. The status") == status.to_json().keys() - {"version"}
