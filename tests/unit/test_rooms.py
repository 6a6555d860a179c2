"""The import rules between packages: they hold, and violations are detected."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "python" / "fsd_inference"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a copy of the package's sources, to plant violations in."""
    folder = tmp_path_factory.mktemp("rooms")
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    return folder


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    lint_imports = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [lint_imports, "--config", ROOT / "pyproject.toml", "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_tree_keeps_the_rules(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "line", "rule"),
    [
        ("network/planted.py", "from fsd_inference import engine", "rooms"),
        ("store/planted.py", "import fsd_inference.partitioning.plan", "rooms"),
        ("errors.py", "import fsd_inference.config", "rooms"),
        ("surprise/__init__.py", "", "rooms"),
        ("engine/planted.py", "import boto3", "only aws knows boto3"),
        ("store/planted.py", "from botocore.config import Config", "only aws knows boto3"),
        ("aws/planted.py", "import obstore", "only store.s3 knows obstore"),
        ("cost/planted.py", "from fsd_inference.network import Network", "cost and report know plain records"),
        ("cost/planted.py", "from fsd_inference.partitioning.exchange import volumes", "cost and report know plain"),
    ],
)
def test_a_planted_violation_is_noticed(copy: Path, module: str, line: str, rule: str) -> None:
    planted = copy / PACKAGE.name / module
    before = planted.read_text() if planted.exists() else None
    planted.parent.mkdir(exist_ok=True)
    planted.write_text(f"{before or ''}\n{line}\n")
    try:
        done = lint(copy)
    finally:
        if before is None:
            planted.unlink()
        else:
            planted.write_text(before)
        if not any(planted.parent.iterdir()):
            planted.parent.rmdir()
    assert done.returncode == 1
    assert rule in done.stdout
    assert "BROKEN" in done.stdout or "not listed" in done.stdout.replace("\n", " ")


def test_the_extension_has_two_doors() -> None:
    """import-linter sees Python modules only, so this rule is held here."""
    importers = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom):
                names.append(node.module or "")
            if any("_kernels" in name.split(".") for name in names):
                importers.add(path.relative_to(PACKAGE).as_posix())
    assert importers == {"kernels.py", "services.py"}


def toml(name: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / name).read_text())


@pytest.mark.parametrize(("crate", "library"), [("fsd-core", "zstd"), ("fsd-services", "ureq")])
def test_only_the_binding_crate_knows_python(crate: str, library: str) -> None:
    needs = {package["name"]: package.get("dependencies", []) for package in toml("Cargo.lock")["package"]}
    seen, queue = set(), [crate]
    while queue:
        name = queue.pop()
        if name not in seen:
            seen.add(name)
            queue += [need.split()[0] for need in needs[name]]
    assert library in seen
    assert not {name for name in seen if name == "numpy" or name.startswith("pyo3")}


def test_the_crates_and_the_package_have_one_version() -> None:
    assert toml("Cargo.toml")["workspace"]["package"]["version"] == toml("pyproject.toml")["project"]["version"]
