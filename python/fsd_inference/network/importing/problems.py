"""Error messages that list all problems of a source."""

from __future__ import annotations

from collections.abc import Sequence

from fsd_inference.errors import InputError

_LISTED = 10
NOT_FINITE = "is NaN, infinite or too large for float32; replace it before importing"
"""What is wrong with a weight or bias, after its place."""


class UnsupportedError(Exception):
    """An operator or tensor that cannot be imported; the message is the reason, and what to do."""


def refuse(problems: Sequence[str], kind: type[InputError] = InputError) -> None:
    """Raise one error that lists all problems, if there are any.

    Parameters
    ----------
    problems : sequence of str
        Each names what is wrong, and where.
    kind : type of InputError, optional
        Class of the error.

    Raises
    ------
    InputError
        An instance of `kind`, if `problems` is not empty.
    """
    if problems:
        raise kind(sentence(problems))


def sentence(problems: Sequence[str]) -> str:
    """Return a message that lists at least one problem."""
    count = f"{len(problems)} problems: " if len(problems) > 1 else ""
    return count + listed(problems, "; ")


def listed(items: Sequence[str], separator: str = ", ", *, most: int = _LISTED) -> str:
    """Join the first items of a list, and say how many more there are."""
    more = [f"and {len(items) - most:,} more"] if len(items) > most else []
    return separator.join([*items[:most], *more])
