"""Generator of the tables of inputs and outputs in the Terraform module's README; a test checks that they are current.

Update them with ``python -m tests.support.terraform_docs``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.support.terraform import MODULE

README = MODULE / "README.md"

_BLOCK = re.compile(r'^(variable|output) "(\w+)" \{\n(.*?)^\}', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """The source block of a variable or output."""

    kind: str
    name: str
    body: str

    def attribute(self, name: str) -> str | None:
        """Return the source text of an attribute's expression."""
        found = re.search(rf"^  {name}\s*= (.*)$", self.body, re.MULTILINE)
        return found and found[1]

    @property
    def description(self) -> str:
        return (self.attribute("description") or "").strip('"').replace('\\"', '"')

    @property
    def default(self) -> str:
        return self.attribute("default") or "required"

    @property
    def validations(self) -> int:
        return len(re.findall(r"^  validation \{", self.body, re.MULTILINE))


def blocks(kind: str) -> list[Block]:
    """Return the module's variables or outputs, in source order."""
    text = (MODULE / f"{kind}s.tf").read_text()
    return [Block(*found) for found in _BLOCK.findall(text) if found[0] == kind]


def tables() -> dict[str, str]:
    """Return the tables of inputs and of outputs, as Markdown."""
    inputs = ["| name | type | default | what |", "|---|---|---|---|"]
    inputs += [
        f"| `{block.name}` | `{block.attribute('type')}` | `{block.default}` | {block.description} |"
        for block in blocks("variable")
    ]
    outputs = ["| name | what |", "|---|---|"]
    outputs += [f"| `{block.name}` | {block.description} |" for block in blocks("output")]
    return {"inputs": "\n".join(inputs), "outputs": "\n".join(outputs)}


def with_tables(text: str) -> str:
    """Return the text of a README with updated tables."""
    for name, table in tables().items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        head, _, rest = text.partition(begin)
        tail = rest.partition(end)[2]
        text = f"{head}{begin}\n{table}\n{end}{tail}"
    return text


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
