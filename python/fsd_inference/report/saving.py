"""The report of a run and the files it is saved as."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from fsd_inference.atomic import atomic_files, filled_directory
from fsd_inference.markup import facts_table
from fsd_inference.report.figures import run_figures
from fsd_inference.report.plots import check_plots, draw_plots
from fsd_inference.report.pricing import price
from fsd_inference.report.run_page import run_page, run_title
from fsd_inference.report.summary import summary
from fsd_inference.report.trace import trace
from fsd_inference.run_report import REPORT_FILE, RunReport

FILES = (REPORT_FILE, "report.html", "trace.json")
"""Files that a saved report consists of, without plots."""


class Report(RunReport):
    """The figures of one run (see `RunReport`), which can be saved with a page, a trace and plots."""

    __slots__ = ()

    def summary(self) -> Sequence[tuple[str, str]]:
        """Return the (name, text) rows that summarize the run."""
        return summary(run_figures(self), price(self))

    def _repr_html_(self) -> str:
        return facts_table(f"Run: {run_title(self)}", self.summary())

    def save(self, directory: str | os.PathLike[str], *, plots: bool = False) -> Path:
        """Write the report into a directory, which is created if necessary.

        ``report.json`` has the figures, ``report.html`` is a self-contained page, ``trace.json`` opens in Perfetto
        (ui.perfetto.dev). The files appear together, once all are complete.

        Parameters
        ----------
        directory : path
            Where to write the files.
        plots : bool, optional
            Whether to write ``timeline.png``, ``layers.png`` and ``matrix.png`` too, if there is data to draw.

        Returns
        -------
        Path
            Path of ``report.json``.

        Raises
        ------
        SettingError
            Plots were requested, but matplotlib is not installed.
        FileFormatError
            The reports of the ranks contradict each other.
        InputError, OutputError
            The directory cannot be written.
        """
        if plots:
            check_plots()
        figures = run_figures(self)
        html = run_page(figures, price(self))
        with filled_directory(directory) as folder, atomic_files() as place:
            texts = self.to_text(), html, json.dumps(trace(figures), separators=(",", ":"))
            for name, text in zip(FILES, texts, strict=True):
                place(folder / name).write_text(text, encoding="utf-8")
            if plots:
                draw_plots(figures, folder, place)
        return Path(directory) / REPORT_FILE
