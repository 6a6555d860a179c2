"""Output of commands: tables and progress bars for people or one JSON object for programs, and one-line errors."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol, TextIO, cast

from fsd_inference.units import bytes_text

if TYPE_CHECKING:  # rich is imported where something is drawn, so that commands start fast
    from rich.console import Console, RenderableType
    from rich.progress import Progress, TaskID

    from fsd_inference.usage import Usage


class Tasks(Protocol):
    """Receives the progress of named tasks; see `fsd_inference.progress.Progress`."""

    def begin(self, task: str, total: float | None, unit: str = "") -> None:
        """Begin `task`, which is complete at `total` (None if unknown); `unit` may be "bytes"."""

    def advance(self, task: str, completed: float) -> None:
        """Report that `completed` of the total is done."""

    def end(self, task: str) -> None:
        """End `task`."""

    def waiting(self, what: str) -> None:
        """Report what a task is waiting for."""


class Output:
    """Output of one command: results go to stdout, everything else to stderr.

    Parameters
    ----------
    as_json : bool
        Whether to print the result as one JSON object instead of tables.
    """

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._stderr_console: Console | None = None

    def result(self, record: Mapping[str, Any], *tables: RenderableType) -> None:
        """Print the result: `record` as one line of JSON, or `tables` (rich tables or strings)."""
        try:
            if self._as_json:
                print_json(record)
            else:
                console = _console(sys.stdout)
                for table in tables:
                    console.print(
                        printable(table) if isinstance(table, str) else table, soft_wrap=isinstance(table, str)
                    )
                sys.stdout.flush()  # raises here, rather than at exit, if the disk is full
        except OSError as error:
            error.filename = error.filename or "stdout"
            raise

    def note(self, text: str) -> None:
        """Print a line on stderr, unless the output is JSON."""
        if not self._as_json:
            self._stderr().print(printable(text), soft_wrap=True)

    @contextmanager
    def progress(self) -> Iterator[Tasks]:
        """Yield a receiver of progress, which draws progress bars on stderr if that is a terminal."""
        if not sys.stderr.isatty():
            yield _NoBars(self)
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[done]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._stderr(), transient=True) as progress:
            yield _Bars(self, progress)

    def _stderr(self) -> Console:
        """Return the console that notes and progress bars share, so that they do not overwrite each other."""
        if self._stderr_console is None:
            self._stderr_console = _console(_NeverFailing(sys.stderr))
        return self._stderr_console


class _NoBars:
    """Prints what tasks are waiting for, and draws no progress bars."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def waiting(self, what: str) -> None:
        self._output.note(f"waiting: {what}")

    def begin(self, task: str, total: float | None, unit: str = "") -> None:
        """Draw nothing."""

    def advance(self, task: str, completed: float) -> None:
        """Draw nothing."""

    def end(self, task: str) -> None:
        """Draw nothing."""


class _Bars(_NoBars):
    def __init__(self, output: Output, progress: Progress) -> None:
        super().__init__(output)
        self._progress = progress
        self._tasks: dict[str, tuple[TaskID, float | None, str]] = {}

    def begin(self, task: str, total: float | None, unit: str = "") -> None:
        self.end(task)
        self._tasks[task] = (self._progress.add_task(printable(task), total=total, done=""), total, unit)

    def advance(self, task: str, completed: float) -> None:
        if task in self._tasks:
            number, total, unit = self._tasks[task]
            write = bytes_text if unit == "bytes" else "{:.0f}".format
            done = write(completed) if total is None else f"{write(completed)}/{write(total)}"
            self._progress.update(number, completed=completed, done=done)

    def end(self, task: str) -> None:
        if task in self._tasks:
            self._progress.remove_task(self._tasks.pop(task)[0])


def print_json(record: Mapping[str, Any]) -> None:
    """Print one JSON object on stdout, on one line."""
    sys.stdout.write(json.dumps(record, allow_nan=False) + "\n")
    sys.stdout.flush()


def print_error(message: str) -> None:
    """Print an error as one line on stderr; if stderr cannot be written, only the exit code reports it."""
    _print_line(f"error: {' '.join(message.split())}")


def print_warning(message: str) -> None:
    """Print a warning as one line on stderr, if it can be written."""
    _print_line(f"warning: {message}")


def _print_line(line: str) -> None:
    with suppress(OSError):
        sys.stderr.write(f"{printable(line)}\n")
        sys.stderr.flush()


def printable(text: str) -> str:
    r"""Return text with control characters other than line ends and tabs as escapes (``\\x1b``).

    Names and messages come from files and services, and a terminal would obey what they contain.
    """
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters (category Cc) except line feed and tab, and those that change the direction of text."""


def facts(rows: Sequence[tuple[str, object]]) -> str:
    """Return (name, value) rows as aligned lines of text."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> RenderableType:
    """Return a titled table whose first column is left-aligned and whose other columns are right-aligned."""
    from rich.table import Table  # noqa: PLC0415

    drawn = Table(title=printable(title), title_justify="left", title_style="bold")
    for number, name in enumerate(columns):
        drawn.add_column(printable(name), justify="right" if number else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(printable(str(cell)) for cell in row))
    return drawn


def requests_text(usage: Usage) -> str:
    """Return the numbers of requests by kind: ``12 s3.get, 3 s3.put``."""
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(usage.requests.items())) or "none"


class _NeverFailing:
    """A stream whose write errors are ignored: a command must not fail because its terminal or pipe was closed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _console(stream: TextIO | _NeverFailing) -> Console:
    from rich.console import Console  # noqa: PLC0415

    # No markup, since file names may contain brackets. Long lines are wrapped by the terminal.
    return Console(file=cast("TextIO", stream), markup=False, highlight=False, emoji=False, soft_wrap=False)
