"""The Terraform module without a cloud: its format, its own tests, its examples and its README."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.support.terraform import MODULE, Terraform, needs_terraform
from tests.support.terraform_docs import README, blocks, with_tables

pytestmark = [pytest.mark.terraform, pytest.mark.timeout(900)]

EXAMPLES = sorted(path.name for path in (MODULE / "examples").iterdir())


@pytest.fixture
def terraform(tmp_path: Path) -> Terraform:
    return Terraform(tmp_path)


def test_everything_is_formatted(terraform: Terraform) -> None:
    done = terraform.run("fmt", "-check", "-diff", "-recursive", str(MODULE), check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_modules_own_tests(terraform: Terraform) -> None:
    module = Terraform(terraform.copy_module())
    module.init()
    done = module.run("test", "-no-color", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Success! \d+ passed, 0 failed", done.stdout)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_valid(name: str, terraform: Terraform) -> None:
    example = Terraform(terraform.copy_module() / "examples" / name)
    example.init()
    example.run("validate", "-no-color")


def test_every_setting_is_typed_described_and_validated() -> None:
    for block in blocks("variable"):
        kind = block.attribute("type")
        assert kind, f"{block.name} has no type"
        assert block.description.endswith("."), f"{block.name} is not described in a sentence"
        assert block.validations or kind == "bool", f"{block.name} takes anything"
        assert block.attribute("nullable") == "false" or block.default in {"null", "required"}, (
            f"{block.name} has a default, and null would not be it"
        )
    assert all(block.description.endswith(".") or "`" in block.description for block in blocks("output"))


def test_every_validation_and_every_rule_has_a_test() -> None:
    tests = (MODULE / "tests" / "validation.tftest.hcl").read_text()
    for block in blocks("variable"):
        refused = len(re.findall(rf"^    var\.{block.name},$", tests, re.MULTILINE))
        assert refused >= block.validations, f"{block.name}: {refused} values refused, {block.validations} validations"
    rules = (MODULE / "locals.tf").read_text().count("precondition {")
    runs = (MODULE / "tests" / "rules.tftest.hcl").read_text().count("expect_failures = [terraform_data.rules]")
    assert runs >= rules > 0


def test_the_readme_lists_inputs_and_outputs() -> None:
    text = README.read_text()
    assert text == with_tables(text), "write the tables anew: python -m tests.support.terraform_docs"


def test_waivers_give_their_reason() -> None:
    for path in MODULE.rglob("*.tf"):
        for waiver in re.findall(r"#checkov:skip=.*", path.read_text()):
            assert re.fullmatch(r"#checkov:skip=CKV2?_AWS_\d+:.{20,}", waiver), f"{path.name}: {waiver}"


def test_where_there_is_no_terraform_tests_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(pytest.skip.Exception, match="Terraform is not installed"):
        needs_terraform()
