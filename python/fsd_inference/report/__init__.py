"""Summary tables, HTML pages, traces and plots of runs, all made from their reports."""

from fsd_inference.report.saving import Report

__all__ = ["Report"]
