"""The commands and scripts of the documentation run as they are printed.

The blocks of a page run in their order in one empty folder. Above a block that cannot run here stands why:
``<!-- not run: needs an AWS account -->``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "terraform/README.md", *sorted(ROOT.glob("docs/**/*.md"))]

_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?^```(?P<language>sh|python)\n(?P<text>.*?)^```$",
    flags=re.DOTALL | re.MULTILINE,
)

pytestmark = pytest.mark.emulator


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `line` is its first one."""

    line: int
    language: str
    text: str

    def command(self) -> list[str]:
        """Return what runs it."""
        if self.language == "python":
            return [sys.executable, "-W", "error", "-c", self.text]
        return ["bash", "-eu", "-o", "pipefail", "-c", self.text]


def runnable(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(text.count("\n", 0, found.start("text")) + 1, found["language"], found["text"])
        for found in _BLOCK.finditer(text)
        if found["reason"] is None
    ]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def environment(home: Path) -> dict[str, str]:
    """Return this process's variables without AWS's, with `fsd` on the path and nothing of the user's at home."""
    program = home / "bin" / "fsd"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fsd_inference "$@"\n')
    program.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "FSD_", "XDG_"))}
    return kept | {"HOME": str(home), "PATH": f"{program.parent}:{os.environ['PATH']}"}


@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)], ids=named)
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path) -> None:
    variables = environment(tmp_path / "home")
    folder = tmp_path / "folder"
    folder.mkdir()
    try:
        for block in runnable(page):
            done = subprocess.run(
                block.command(), cwd=folder, env=variables, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{named(page)}:{block.line}\n{block.text}\n{done.stdout}\n{done.stderr}"
    finally:
        if (folder / "stack.json").exists():  # a block failed between `up` and `down`
            subprocess.run(["fsd", "stack", "down"], cwd=folder, env=variables, check=False)


def test_the_pages_for_newcomers_run() -> None:
    assert {"README.md", "docs/quickstart.md", "docs/guides/run.md"} <= {
        named(page) for page in PAGES if runnable(page)
    }


def test_blocks_are_found_with_their_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "a\n\n```sh\necho 1\n```\n\n"
        "<!-- not run: why -->\n```sh\nfalse\n```\n\n"
        "```\nplain\n```\n\n"
        "```python\nx = 1\n```\n"
    )
    assert runnable(page) == [Block(4, "sh", "echo 1\n"), Block(17, "python", "x = 1\n")]
