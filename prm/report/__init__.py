"""The report of a reward model: one page, Markdown, plots and the numbers as JSON."""

from prm.report.evaluation import Evaluation, write_evaluation
from prm.report.samples import choose_samples

__all__ = ["Evaluation", "choose_samples", "write_evaluation"]
