"""`fsd infer --output DIR/`: one file of a batch after the other, each answered before the next one is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fsd_inference.atomic import atomic_files, filled_directory
from fsd_inference.cli.console import Tasks
from fsd_inference.errors import RunError, SettingError, run_error_from_record
from fsd_inference.progress import task
from fsd_inference.units import seconds_text, usd_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    from fsd_inference.session import Inference

OutputFormat = Literal["npz", "npy", "csv", "parquet"]


@dataclass(slots=True)
class Totals:
    """What all parts add up to: `parts` has a record of each, `masks` which of its samples are alive."""

    parts: list[dict[str, Any]] = field(default_factory=list)
    masks: list[NDArray[np.bool_]] = field(default_factory=list)
    samples: int = 0
    alive: int = 0
    wall_s: float = 0.0
    requests: int = 0
    usd: float | None = 0.0

    def add(self, file: Path, written: Path, answer: Inference) -> None:
        """Add the answer to a part."""
        from fsd_inference.report.pricing import price  # noqa: PLC0415

        report, cost = answer.report, price(answer.report).metered
        self.parts.append(
            {"input": str(file), "output": str(written), "samples": report.samples, "wall_s": report.wall_s}
        )
        mask = alive_mask(answer)
        self.masks.append(mask)
        self.alive += int(mask.sum())
        self.samples += report.samples
        self.wall_s += report.wall_s
        self.requests += sum(report.usage.requests.values())
        self.usd = None if self.usd is None or cost is None else self.usd + cost.usd

    def record(self) -> dict[str, Any]:
        """Return the totals as plain JSON values."""
        return {
            "samples": self.samples,
            "alive": self.alive,
            "wall_s": self.wall_s,
            "requests": self.requests,
            "usd": self.usd,
            "parts": self.parts,
        }

    def rows(self, output: Path, report: Path | None) -> list[tuple[str, object]]:
        """Return the (name, text) rows that summarize the parts."""
        rows: list[tuple[str, object]] = [
            ("output", f"{output}: {len(self.parts):,} files, {self.samples:,} samples"),
            ("alive", f"{self.alive:,} of {self.samples:,} samples have an output > 0"),
            ("wall time", f"{seconds_text(self.wall_s)} for all runs, without reading and writing"),
            ("requests", f"{self.requests:,}"),
        ]
        if self.usd is not None:
            rows.append(("cost", f"USD {usd_text(self.usd)}, as functions"))
        if report is not None:
            rows.append(("reports", f"{report}, a directory for each part; `fsd report` compares them"))
        return rows


def alive_mask(answer: Inference) -> NDArray[np.bool_]:
    """Return, for each sample, whether any of its outputs is above 0."""
    import numpy as np  # noqa: PLC0415

    mask = np.zeros(answer.report.samples, bool)
    mask[answer.alive()] = True
    return mask


def part_outputs(batch: Path, output: Path, form: OutputFormat) -> dict[Path, Path]:
    """Return the output file for each input file of a batch, in order.

    Raises
    ------
    SettingError
        Two input files have the same name but for the suffix, or the directory holds other files, which would be
        mistaken for outputs.
    """
    from fsd_inference.network.readers.parts import files_in  # noqa: PLC0415

    found: dict[Path, Path] = {}
    for file in files_in(batch) if batch.is_dir() else [batch]:
        written = output / f"{_stem(file)}.{form}"
        other = next((each for each, path in found.items() if path == written), None)
        if other is not None:
            raise SettingError(f"{other} and {file} would both become {written}; rename one of them")
        found[file] = written
    if output.is_dir():
        others = sorted({entry.name for entry in output.iterdir()} - {path.name for path in found.values()})
        if others:
            raise SettingError(
                f"{output} holds {others[0]}, which is no output of {batch}; remove it, or choose another directory"
            )
    return found


def infer_parts(
    outputs: dict[Path, Path],
    batch: Path,
    features: int,
    run: Callable[[csr_array, Path | None], Inference],
    tasks: Tasks,
    *,
    categories: Path | None,
    report: Path | None,
    plots: bool,
) -> Totals:
    """Answer each file of a batch, and write its outputs and report; outputs appear once all are complete.

    Parameters
    ----------
    outputs : dict of Path to Path
        See `part_outputs`.
    batch : Path
        File or directory of inputs.
    features : int
        Number of features of a sample.
    run : callable
        Runs samples and, if that fails, saves a report to the given directory, if there is one.
    tasks : Tasks
    categories, report, plots
        See `fsd infer`; the reports are in a directory for each part.

    Raises
    ------
    InputError, RunError
        A part cannot be read, or its run failed; the message names the file.
    """
    import numpy as np  # noqa: PLC0415

    from fsd_inference.network import load_parts, write_categories  # noqa: PLC0415

    totals = Totals()
    folder_of_outputs = next(iter(outputs.values())).parent
    with (
        filled_directory(folder_of_outputs) as folder,
        atomic_files() as place,
        task(tasks, "files", len(outputs)),
    ):
        for file, samples in load_parts(batch, features):
            kept = None if report is None else report / _stem(file)
            try:
                answer = run(samples, kept)
            except RunError as error:
                raise run_error_from_record({**error.record(), "message": f"{file}: {error}"}) from error
            written = outputs[file]
            answer.save(place(folder / written.name), suffix=written.suffix)
            if kept is not None:
                answer.report.save(kept, plots=plots)
            totals.add(file, written, answer)
            tasks.advance("files", len(totals.parts))
        if categories is not None:
            write_categories(place(categories), np.concatenate(totals.masks))
    return totals


def _stem(file: Path) -> str:
    """Return the name of an input file without the suffixes of its format and of compression."""
    return Path(file.name.removesuffix(".gz")).stem
