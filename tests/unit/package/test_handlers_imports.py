"""Imports of the functions: only locked libraries, and neither the command line nor the partitioners."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest

from fsd_inference.aws.package.contents import LOCK

# Imports a module where the names that follow cannot be imported, and tells what was.
PROGRAM = """
import importlib, json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[2:]:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
module = importlib.import_module(sys.argv[1])
assert callable(module.handle)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
# botocore takes certifi where it is there; setuptools puts a hook into every interpreter beside it.
STRANGERS = {"fsd-inference", "certifi", "setuptools"}
BLOCKED = ["scipy", "typer", "rich", "pymetis", "mtkahypar", "sklearn", "ministack"]


@pytest.mark.parametrize("function", ["coordinator", "worker"])
def test_a_function_imports_only_what_is_locked_for_it(function: str) -> None:
    command = [sys.executable, "-W", "error", "-c", PROGRAM, f"fsd_inference.aws.handlers.{function}", *BLOCKED]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    locked = {name.replace("_", "-") for name in re.findall(r"^([\w.-]+)==", LOCK.read_text(), flags=re.MULTILINE)}
    distributions = packages_distributions()
    imported = {
        name.lower().replace("_", "-")
        for module in json.loads(done.stdout)
        if module not in sys.stdlib_module_names
        for name in distributions.get(module, [])
    }
    assert {"boto3", "numpy"} <= imported  # or nothing was looked at
    assert imported - STRANGERS <= locked
