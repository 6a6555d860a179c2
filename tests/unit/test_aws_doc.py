"""docs/aws.md names tests that exist, one at least for each rule."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
RULES = [line for line in (ROOT / "docs" / "aws.md").read_text().splitlines() if line.startswith("| ")][1:]


def test_each_rule_has_a_source_and_a_test() -> None:
    assert len(RULES) > 10
    for rule in RULES:
        source, tests = rule.strip("|").split("|")[2:]
        assert source.strip(), rule
        named = re.findall(r"`([^`]+)`", tests)
        assert named, rule
        for path in named:
            assert (ROOT / path).exists(), path
