"""Contents of a function's zip: locked libraries, the package for the target, and one-line errors from pip."""

from __future__ import annotations

import re
import shutil
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest

from fsd_inference.aws.package import Target, add_libraries, add_our_package, contents
from fsd_inference.chaos.lambda_zip import here
from fsd_inference.errors import FsdError, InputError, SettingError
from tests.support.cli import Fsd, entries, fsd_in

ROOT = Path(__file__).resolve().parents[3]
LOCKED = dict(re.findall(r"^([\w.-]+)==(\S+)", contents.LOCK.read_text(), flags=re.MULTILINE))


@pytest.fixture
def fsd(capsys: pytest.CaptureFixture[str]) -> Fsd:
    return fsd_in(capsys)


def test_the_lock_has_what_the_functions_need_and_nothing_of_the_command_line() -> None:
    asked = re.findall(r"^([\w-]+)", (ROOT / "docker" / "requirements.in").read_text(), flags=re.MULTILINE)
    closure, queue = set(), list(asked)
    while queue:
        name = queue.pop().lower().replace("_", "-")
        if name not in closure:
            closure.add(name)
            needs = [need for need in requires(name) or [] if "extra ==" not in need]
            queue += [re.match(r"[\w.-]+", need)[0] for need in needs]  # type: ignore[index]
    assert set(LOCKED) == closure
    assert not closure & {"scipy", "typer", "rich", "pymetis", "mtkahypar"}


def test_the_lock_has_the_versions_that_are_tested() -> None:
    tested = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert {name: tested[name.replace("-", "_") if name == "typing-extensions" else name] for name in LOCKED} == LOCKED


def test_every_locked_library_has_hashes() -> None:
    blocks = re.split(r"^(?=\w)", contents.LOCK.read_text(), flags=re.MULTILINE)
    assert all("--hash=sha256:" in block for block in blocks if "==" in block)


@pytest.mark.parametrize(
    ("arch", "python", "message"),
    [
        ("riscv64", "3.13", "architecture must be one of x86_64, arm64"),
        ("x86_64", "3.10", "at least 3.11"),
        ("x86_64", "3.13.1", "must be of the form 3.13"),
        ("x86_64", "four", "must be of the form 3.13"),
    ],
)
def test_a_target_that_makes_no_sense_is_refused(arch: str, python: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Target(arch, python)


def test_pip_is_asked_for_wheels_of_the_target() -> None:
    options = Target("arm64", "3.13").pip_options
    assert {"--python-version=3.13", "--platform=manylinux2014_aarch64", "--platform=manylinux_2_28_aarch64"} <= {
        *options
    }
    assert not [option for option in options if "x86_64" in option]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a package folder with an extension to damage, which takes the place of the one that runs."""
    package = tmp_path / "site" / "fsd_inference"
    shutil.copytree(ROOT / "python" / "fsd_inference" / "aws" / "package", package)
    extension = next((ROOT / "python" / "fsd_inference").glob("_kernels*.so"))
    with extension.open("rb") as whole:
        (package / extension.name).write_bytes(whole.read(4096))
    monkeypatch.setattr(contents, "_PACKAGE", package)
    return package


def test_an_extension_of_another_machine_is_refused(package: Path, tmp_path: Path) -> None:
    (extension,) = package.glob("*.so")
    content = bytearray(extension.read_bytes())
    content[18:20] = (183).to_bytes(2, "little")
    extension.write_bytes(content)
    add_our_package(tmp_path / "arm", Target("arm64"))
    with pytest.raises(InputError, match=r"is for aarch64 and Lambda's x86_64 needs x86_64; give a wheel"):
        add_our_package(tmp_path / "x86", Target("x86_64"))


def test_an_extension_for_a_newer_glibc_is_refused(package: Path, tmp_path: Path) -> None:
    (extension,) = package.glob("*.so")
    with extension.open("ab") as file:
        file.write(b"\0GLIBC_2.38\0")
    with pytest.raises(InputError, match=r"needs glibc 2\.38 and Lambda has 2\.34"):
        add_our_package(tmp_path / "zip", here())


def test_a_package_without_its_extension_is_refused(package: Path, tmp_path: Path) -> None:
    next(package.glob("*.so")).unlink()
    with pytest.raises(InputError, match="0 compiled extensions instead of one"):
        add_our_package(tmp_path / "zip", here())


def test_a_library_that_differs_from_the_lock_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "six-1.17.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("six-1.17.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: six\nVersion: 1.17.0\n")
    lock = tmp_path / "requirements.txt"
    lock.write_text(f"--no-index\n--find-links {tmp_path}\nsix==1.17.0 --hash=sha256:{'0' * 64}\n")
    monkeypatch.setattr(contents, "LOCK", lock)
    seen = []
    with pytest.raises(FsdError, match=r"pip could not install .*HASHES") as caught:
        add_libraries(tmp_path / "zip", here(), lambda done, total: seen.append((done, total)))
    assert "\n" not in str(caught.value)
    assert seen == [(1, 1)]


def test_a_wheel_that_is_not_there_or_not_for_the_target_is_named(fsd: Fsd, tmp_path: Path) -> None:
    output = tmp_path / "f.zip"
    said = fsd("package", "zip", "-o", output, "--wheel", tmp_path / "no.whl")
    assert said.code == 2
    assert "no.whl does not exist" in said.error()
    foreign = tmp_path / "fsd_inference-0.1.0-cp311-abi3-win_amd64.whl"
    foreign.touch()
    said = fsd("package", "zip", "-o", output, "--wheel", foreign)
    assert said.code == 1
    assert "not a supported wheel on this platform" in said.error()
    assert entries(tmp_path) == {foreign.name}


def test_the_command_writes_the_zip_and_says_what_it_is(
    fsd: Fsd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "requirements.txt"
    lock.write_text("--no-index\n")
    monkeypatch.setattr(contents, "LOCK", lock)
    target = here()
    output = tmp_path / "f.zip"
    said = fsd("package", "zip", "-o", output, "--arch", target.arch, "--python", target.python, "--json").json()
    assert said["zipped_bytes"] == output.stat().st_size < said["unpacked_bytes"]
    again = tmp_path / "again.zip"
    told = fsd("package", "zip", "-o", again, "--arch", target.arch, "--python", target.python)
    assert again.read_bytes() == output.read_bytes()
    assert said["sha256"] in told.stdout
    with zipfile.ZipFile(output) as written:
        assert {"fsd_inference/aws/handlers/worker.py", "fsd_inference/_kernels.abi3.so"} <= {*written.namelist()}
