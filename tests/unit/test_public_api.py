"""The public API: complete, documented, and with working examples."""

from __future__ import annotations

import doctest
import importlib.metadata
import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import fsd_inference as fsd
from fsd_inference import errors

MADE_BY_THE_PROGRAM = {"Advice", "Check", "Partition", "Prediction", "Progress", "Push", "Report", "RunReport"}
"""What users get and seldom make: it needs no example of its own."""

PUBLIC = {name: getattr(fsd, name) for name in fsd.__all__ if name != "__version__"}
ERRORS = {name for name, value in PUBLIC.items() if isinstance(value, type) and issubclass(value, fsd.FsdError)}


def sections(text: str) -> dict[str, str]:
    """Return the sections of a docstring in NumPy style; what stands before the first is called "summary"."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}$", inspect.cleandoc(text), flags=re.M)
    return {"summary": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def names_in(section: str) -> list[str]:
    """Return what a section describes: names at the left margin, several in a line separated by commas."""
    return [name for line in re.findall(r"^(\S.*)$", section, re.M) for name in line.partition(" :")[0].split(", ")]


def test_all_names_are_there() -> None:
    assert set(dir(fsd)) == set(fsd.__all__)
    assert sorted(fsd.__all__) == fsd.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fsd.nothing


def test_every_error_is_exported() -> None:
    raised = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert raised == ERRORS
    assert all(name in (errors.__doc__ or "") for name in raised)


def test_the_version() -> None:
    assert fsd.__version__ == importlib.metadata.version("fsd-inference")


def test_the_package_alone_imports_little() -> None:
    """Ranks, and the command line's help, wait for every import."""
    program = "import sys, fsd_inference; print(*sorted({'numpy', 'scipy', 'boto3', 'obstore'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", PUBLIC)
def test_docstrings_say_all(name: str) -> None:
    value: Any = PUBLIC[name]
    found = sections(value.__doc__ or "")
    first = found["summary"].split("\n\n")[0]
    assert first.endswith("."), first
    if name not in {*ERRORS, *MADE_BY_THE_PROGRAM}:
        assert "Examples" in found
    if isinstance(value, type) and "__dataclass_fields__" in vars(value):
        shown = names_in(found.get("Attributes", ""))
        assert [field for field in vars(value)["__dataclass_fields__"] if field not in shown] == []
        return
    if name in ERRORS or name in MADE_BY_THE_PROGRAM:
        return
    _check_parameters(value, found)


def _check_parameters(value: Callable[..., Any], found: dict[str, str]) -> None:
    signature = inspect.signature(value)
    shown = names_in(found.get("Parameters", ""))
    assert [parameter for parameter in signature.parameters if parameter not in shown] == []
    assert [parameter for parameter in shown if parameter not in signature.parameters] == []
    if not isinstance(value, type):
        assert "Returns" in found
    assert "Raises" in found


@pytest.mark.parametrize("name", sorted(set(PUBLIC) - ERRORS))
def test_examples_are_true(name: str) -> None:
    finder = doctest.DocTestFinder(recurse=False)
    for test in finder.find(PUBLIC[name], name, globs={}):
        result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
        assert result.failed == 0
        assert result.attempted > 0 or name in MADE_BY_THE_PROGRAM
