"""What a run did, for people: summary tables, pages, traces and plots from its report."""

from fsd_inference.report.saving import Report

__all__ = ["Report"]
