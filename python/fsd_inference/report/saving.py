"""A run's report, and the files it is saved as."""

from __future__ import annotations

import json
import os
from pathlib import Path

from fsd_inference.atomic import atomic_files, filled_directory
from fsd_inference.report.figures import run_figures
from fsd_inference.report.plots import check_plots, draw_plots
from fsd_inference.report.pricing import price
from fsd_inference.report.run_page import run_page
from fsd_inference.report.trace import trace
from fsd_inference.run_report import REPORT_FILE, RunReport

FILES = (REPORT_FILE, "report.html", "trace.json")
"""What a report is saved as, plots aside."""


class Report(RunReport):
    """Figures of one run (see `RunReport`), which can be saved as pages and drawings."""

    __slots__ = ()

    def save(self, directory: str | os.PathLike[str], *, plots: bool = False) -> Path:
        """Write what is known of the run into a directory, which is made if need be.

        ``report.json`` has the figures, ``report.html`` is a page that needs nothing beside it, ``trace.json`` opens in
        Perfetto (ui.perfetto.dev). All appear when all are complete.

        Parameters
        ----------
        directory : path
        plots : bool, optional
            Also ``timeline.png``, ``layers.png`` and ``matrix.png``, where there is something to draw.

        Returns
        -------
        Path
            Of ``report.json``.

        Raises
        ------
        SettingError
            There is no matplotlib for the plots.
        FileFormatError
            What the ranks report makes no sense.
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
