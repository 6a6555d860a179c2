"""Digests of the layers of a run, by which runs are compared; the kernels compute them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fsd_inference.errors import FileFormatError
from fsd_inference.fields import Fields

_TEXT = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Digests:
    """The digests of a run: what was run, and what each layer computed.

    Attributes
    ----------
    network : str
        `Network.digest` in hexadecimal digits.
    plan : str or None
        Digest of the exchange plan in hexadecimal digits; None if the whole network ran in the session's process.
    batch : int
        Digest of the batch, 64 bits.
    layers : tuple of int
        Digest of each layer's outputs, 64 bits. It depends neither on the number of workers, the partition and the
        channel nor on replicas, micro-batches and threads.
    """

    network: str
    plan: str | None
    batch: int
    layers: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the digests as plain JSON values."""
        return {
            "network": self.network,
            "plan": self.plan,
            "batch": digest_text(self.batch),
            "layers": digest_texts(self.layers),
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Digests:
        """Rebuild digests from the output of `to_json`; raise FileFormatError if a field is missing or wrong."""
        return cls(
            network=fields.take("network", str),
            plan=fields.take_optional("plan", str),
            batch=parsed_digests([fields.take("batch", str)], "digests.batch")[0],
            layers=parsed_digests(fields.take("layers", list), "digests.layers"),
        )


def digest_text(digest: int) -> str:
    """Return a digest as 16 hexadecimal digits."""
    return f"{digest:016x}"


def digest_texts(digests: Iterable[int]) -> list[str]:
    """Return digests in their JSON form: numbers of 64 bits are not exact in every JSON library."""
    return [digest_text(digest) for digest in digests]


def parsed_digests(texts: Sequence[object], where: str) -> tuple[int, ...]:
    """Return digests from their JSON form; raise FileFormatError, which names the field `where`, for anything else."""
    for text in texts:
        if not isinstance(text, str) or not _TEXT.fullmatch(text):
            raise FileFormatError(f"'{where}' must hold 16 hexadecimal digits each, not {text!r:.60}")
    return tuple(int(str(text), 16) for text in texts)


def added(parts: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """Return the digests of layers from those of all their parts: for each layer the sum modulo 2^64."""
    return tuple(sum(digests) % 2**64 for digests in zip(*parts, strict=True))
