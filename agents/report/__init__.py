"""The report of a run: pure functions from the run folder's files to Markdown, HTML and plots."""

from agents.report.page import write_report

__all__ = ["write_report"]
