"""A run's report, and the files it is saved as."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from fsd_inference.records import RunReport
from fsd_inference.report.figures import run_figures
from fsd_inference.report.plots import check_plots, save_plots
from fsd_inference.report.pricing import price
from fsd_inference.report.run_page import run_page
from fsd_inference.report.trace import trace


class Report(RunReport):
    """Figures of one run (see `RunReport`), which can be saved as pages and drawings."""

    __slots__ = ()

    def save(self, directory: str | os.PathLike[str], *, plots: bool = False) -> Path:
        """Write what is known of the run into a directory, which is made if need be.

        ``report.json`` has the figures, ``report.html`` is a page that needs nothing beside it, ``trace.json`` opens in
        Perfetto (ui.perfetto.dev).

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
        """
        if plots:
            check_plots()
        figures = run_figures(self)
        html = run_page(figures, price(self))
        path = super().save(directory)
        write_text(path.with_name("report.html"), html)
        write_text(path.with_name("trace.json"), json.dumps(trace(figures), separators=(",", ":")))
        if plots:
            save_plots(figures, path.parent)
        return path


def write_text(path: Path, text: str) -> None:
    """Write a file that takes its place when it is complete."""
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=".report", suffix=".tmp", delete=False, encoding="utf-8"
    ) as file:
        file.write(text)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)
