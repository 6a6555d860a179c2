"""The files of the deployment package: libraries at locked versions, and this package."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fsd_inference.aws.package.archive import ZipFacts, write_zip
from fsd_inference.aws.package.prune import prune
from fsd_inference.errors import FsdError, InputError, SettingError
from fsd_inference.temporary import TemporaryFolder

LOCK = Path(__file__).with_name("requirements.txt")
"""Lock file of the libraries, pinned by hash for every supported architecture and Python version."""

_PACKAGE = Path(__file__).parents[2]
_MACHINES = {62: "x86_64", 183: "aarch64"}  # e_machine in an ELF header
_ARCHITECTURES = {"x86_64": "x86_64", "arm64": "aarch64"}  # Lambda's name -> name in wheel tags
_GLIBC = 34  # glibc 2.34 of Amazon Linux 2023, on which Lambda runs Python 3.12 and newer


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a deployment package: architecture by Lambda's name, and Python version."""

    arch: str = "x86_64"
    python: str = "3.13"

    def __post_init__(self) -> None:
        if self.arch not in _ARCHITECTURES:
            raise SettingError(f"the architecture must be one of {', '.join(_ARCHITECTURES)}, not {self.arch!r}")
        version = re.fullmatch(r"3\.(\d{1,2})", self.python)
        if version is None or int(version[1]) < 11:
            raise SettingError(
                f"the version of Python must be of the form 3.13, and at least 3.11, not {self.python!r}"
            )

    @property
    def machine(self) -> str:
        """The architecture's name in wheel tags and ELF tools: x86_64 or aarch64."""
        return _ARCHITECTURES[self.arch]

    @property
    def pip_options(self) -> list[str]:
        """Options that make pip install wheels for this target, independent of the machine it runs on."""
        platforms = [f"manylinux_2_{minor}_{self.machine}" for minor in range(_GLIBC, 16, -1)]
        platforms.append(f"manylinux2014_{self.machine}")
        return [
            "--only-binary=:all:",
            "--implementation=cp",
            f"--python-version={self.python}",
            *(f"--platform={platform}" for platform in platforms),
        ]


def build_zip(
    output: Path,
    target: Target,
    *,
    wheel: Path | None = None,
    on_library: Callable[[int, int], None] = lambda _done, _all: None,
) -> ZipFacts:
    """Write the functions' zip file, with the same content as the image, for Lambda's own Python runtimes.

    Parameters
    ----------
    output : Path
        The zip file to write; it is written completely or not at all.
    target : Target
        Architecture and Python version of the functions.
    wheel : Path, optional
        A wheel of this package for the target; the running package if not given.
    on_library : callable
        Called with the number of libraries collected so far, and in total.

    Raises
    ------
    FsdError
        If a library cannot be downloaded, this package is not built for the target, or the zip exceeds Lambda's limit.
    """
    with TemporaryFolder("package") as folder:
        directory = folder / "files"
        directory.mkdir()
        add_our_package(directory, target, wheel)  # first, to detect problems with it before any download
        add_libraries(directory, target, on_library)
        prune(directory)
        return write_zip(directory, output)


def add_libraries(
    directory: Path, target: Target, on_library: Callable[[int, int], None] = lambda _done, _all: None
) -> None:
    """Install the locked libraries into `directory` with pip, from the index that pip is configured for.

    Raises
    ------
    FsdError
        If pip cannot install one of them; the message quotes pip's error.
    """
    total = len(re.findall(r"^\w\S*==", LOCK.read_text(), flags=re.MULTILINE))
    options = ["--require-hashes", "--no-compile", "--progress-bar=off", *target.pip_options]
    done = 0
    for line in _pip("--target", str(directory), *options, "--requirement", str(LOCK)):
        if line.startswith(("Collecting ", "Processing ")):
            done += 1
            on_library(done, total)


def add_our_package(directory: Path, target: Target, wheel: Path | None = None) -> None:
    """Install this package into `directory`, from a wheel or as a copy of the running one.

    Raises
    ------
    FsdError
        If pip cannot install the wheel.
    InputError
        If there is no such wheel, or the compiled extension does not fit the target.
    """
    if wheel is not None:
        if not wheel.is_file():
            raise InputError(f"{wheel} does not exist; `make wheel` builds one for this machine")
        for _ in _pip("--target", str(directory), "--no-compile", *target.pip_options, str(wheel)):
            pass
    else:
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(_PACKAGE, directory / _PACKAGE.name, ignore=unwanted)
    _check_extension(directory / _PACKAGE.name, target)


def _check_extension(package: Path, target: Target) -> None:
    libraries = list(package.glob("_kernels*.so"))
    if len(libraries) != 1:
        raise InputError(f"{package.name} has {len(libraries)} compiled extensions instead of one; build it again")
    content = libraries[0].read_bytes()
    machine = _MACHINES.get(int.from_bytes(content[18:20], "little"), "another")
    hint = "give a wheel built for it with --wheel (docker/Dockerfile's stage `wheel` builds one)"
    if machine != target.machine:
        raise InputError(
            f"the compiled extension is for {machine} and Lambda's {target.arch} needs {target.machine}; {hint}"
        )
    needed = max((int(minor) for minor in re.findall(rb"\0GLIBC_2\.(\d+)", content)), default=0)
    if needed > _GLIBC:
        raise InputError(f"the compiled extension needs glibc 2.{needed} and Lambda has 2.{_GLIBC}; {hint}")


def _pip(*arguments: str) -> Iterator[str]:
    """Run ``pip install`` and yield its output line by line.

    Raises
    ------
    FsdError
        If pip fails; the message quotes its last error.
    """
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        "--no-deps",
        *arguments,
    ]
    reason = "it gave no reason"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:  # noqa: S603 - pip
        try:
            for line in process.stdout or ():
                if line.startswith("ERROR: ") or "No module named pip" in line:
                    reason = line.removeprefix("ERROR: ").strip()
                yield line
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise FsdError(f"pip could not install the functions' libraries: {reason}")
