"""What is wrong with a source, all of it in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from fsd_inference.errors import InputError

_LISTED = 10


def refuse(problems: Sequence[str], kind: type[InputError] = InputError) -> None:
    """Raise one error that lists all problems; do nothing if there is none.

    Parameters
    ----------
    problems : sequence of str
        Each says by itself what is wrong, and where.
    kind : type of InputError, optional
        The error's class.

    Raises
    ------
    InputError
        Of class `kind`, if there is a problem.
    """
    if problems:
        raise kind(sentence(problems))


def sentence(problems: Sequence[str]) -> str:
    """Return the message that lists all problems, of which there is one at least."""
    count = f"{len(problems)} problems: " if len(problems) > 1 else ""
    return count + listed(problems, "; ")


def listed(items: Sequence[str], separator: str = ", ") -> str:
    """Return the first items of a list that may be long, and how many more there are."""
    more = [f"and {len(items) - _LISTED:,} more"] if len(items) > _LISTED else []
    return separator.join([*items[:_LISTED], *more])
