"""MkDocs hooks: pages made from code, files of the repository outside docs/, and the library that draws diagrams.

Links in Markdown stay relative to the repository, as a forge shows them; here they become links within the site.
"""

from __future__ import annotations

import inspect
import posixpath
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import fsd_inference

ROOT = Path(__file__).resolve().parents[1]
MERMAID = ROOT / ".work/mermaid/package"

# Where a file or folder of the repository is found in the site.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "terraform/README.md": "guides/terraform.md",
    "examples": "examples.md",
}
_SOURCES = {page: path for path, page in PAGES.items()}
_LINK = re.compile(r"(?<=\]\()(?P<path>[^)\s#:]+)(?=[#)])")
_MERMAID_SCRIPT = re.compile(r'<script src="[^"]*mermaid\.min\.js"></script>')
_EXAMPLES = re.compile(r"^\x08?\n?(Examples?:)\n((?:  .*\n)+)", re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List all records of decisions in the navigation."""
    (internals,) = [section["Internals"] for section in config.nav or [] if "Internals" in section]
    records = sorted(path.name for path in (ROOT / "docs/adr").glob("0*.md"))
    internals.append({"Decisions": ["adr/README.md", *(f"adr/{name}" for name in records)]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and scripts that are not in docs/."""
    made = {page: (ROOT / path).read_text() for path, page in PAGES.items() if path.endswith(".md")}
    made |= {"examples.md": _examples(), "reference/cli.md": _commands(), "reference/python.md": _public_names()}
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    for name, source in {"mermaid.min.js": MERMAID / "dist/mermaid.min.js", "LICENSE": MERMAID / "LICENSE"}.items():
        if not source.exists():
            raise PluginError(f"{source} is missing: `make docs` downloads it")
        files.append(File.generated(config, f"mermaid/{name}", abs_src_path=str(source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to files of the repository lead to where the site has them."""
    here = page.file.src_uri
    folder = posixpath.dirname(_SOURCES.get(here, f"docs/{here}"))

    def moved(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, link["path"]))
        return posixpath.relpath(_in_site(path, config, files), posixpath.dirname(here) or ".")

    return _LINK.sub(moved, markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Leave the 3 MB of Mermaid out of pages without a diagram."""
    return output if 'class="mermaid"' in output else _MERMAID_SCRIPT.sub("", output)


def _in_site(path: str, config: MkDocsConfig, files: Files) -> str:
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path in PAGES:
        return PAGES[path]
    copy = f"repository/{path}"
    if (ROOT / path).is_file() and copy not in files.src_uris:
        files.append(File.generated(config, copy, abs_src_path=str(ROOT / path)))
    return copy


def _commands() -> str:
    """Return what the commands' help says, as Typer writes it in Markdown."""
    arguments = [sys.executable, "-m", "typer", "fsd_inference.cli.main", "utils", "docs", "--name", "fsd"]
    text = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    return _EXAMPLES.sub(lambda found: f"{found[1]}\n\n```sh\n{inspect.cleandoc(found[2])}\n```\n", text)


def _public_names() -> str:
    """Return a page on which mkdocstrings writes the docstrings of all public names."""
    named = {name: getattr(fsd_inference, name) for name in fsd_inference.__all__ if not name.startswith("_")}
    errors = [name for name, value in named.items() if inspect.isclass(value) and issubclass(value, Exception)]
    classes = [name for name, value in named.items() if inspect.isclass(value) and name not in errors]
    functions = [name for name in named if name not in errors and name not in classes]
    parts = ["# Python interface\n\nAll names below are attributes of the package: `import fsd_inference as fsd`.\n"]
    for title, names in {"Functions": functions, "Classes": classes, "Errors": errors}.items():
        parts.append(f"## {title}\n")
        parts += [_docstring(name, named[name]) for name in sorted(names)]
    return "\n".join(parts)


def _docstring(name: str, value: Any) -> str:
    place = f"{value.__module__}.{value.__qualname__}"  # some public names are also names of submodules
    return f"::: {place}\n    options: {{heading_level: 3, heading: {name}, toc_label: {name}}}\n"


def _examples() -> str:
    """Return a page with the example scripts."""
    scripts = sorted((ROOT / "examples").glob("*.py"))
    return "# Examples\n\n" + "\n".join(f"## {path.name}\n\n```python\n{path.read_text()}```\n" for path in scripts)
