"""A summary of skipped tests and their reasons at the end of a test run."""

from __future__ import annotations

from collections import defaultdict

import pytest


def summarize_skips(terminal: pytest.TerminalReporter) -> None:
    """Print the skipped tests by reason, so that a missing file or processor feature is not overlooked."""
    tests = defaultdict(list)
    for report in terminal.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        tests[reason.removeprefix("Skipped: ")].append(report.nodeid)
    if not tests:
        return
    terminal.section("NOT TESTED HERE", yellow=True, bold=True)
    for reason, names in sorted(tests.items()):
        terminal.line(f"{reason}  ({len(names)} {'test' if len(names) == 1 else 'tests'})", yellow=True)
        for name in names:
            terminal.line(f"    {name}")
