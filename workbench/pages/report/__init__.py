"""The report: a folder of results as one page that needs nothing but a browser."""

from workbench.pages.report.page import report

__all__ = ["report"]
