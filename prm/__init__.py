"""prm: label the lines of programs, train process reward models on them, and measure how good they are."""

from prm.agreement import compare_labels
from prm.alignment import line_end_tokens, newlines_per_token, split_lines
from prm.collect import collect
from prm.completion import Completer, Completion
from prm.config import PRMConfig
from prm.evaluation import Estimate, PRMMetrics, evaluate_prm
from prm.heads import HEADS
from prm.labeling import BinarySearchLabeler, Labeler, label_to_file, read_labels
from prm.model import ProcessRewardModel
from prm.optimization import RefreshReport, make_optimizer, refresh_prm
from prm.program import LabeledProgram, SampledProgram
from prm.reference import ReferenceLabeler, ReferenceScorer
from prm.selection import SampleClass, SelectionConfig, label_statistics, select
from prm.training import PRMReport, train_prm

__all__ = [
    "HEADS",
    "BinarySearchLabeler",
    "Completer",
    "Completion",
    "Estimate",
    "LabeledProgram",
    "Labeler",
    "PRMConfig",
    "PRMMetrics",
    "PRMReport",
    "ProcessRewardModel",
    "ReferenceLabeler",
    "ReferenceScorer",
    "RefreshReport",
    "SampleClass",
    "SampledProgram",
    "SelectionConfig",
    "collect",
    "compare_labels",
    "evaluate_prm",
    "label_statistics",
    "label_to_file",
    "line_end_tokens",
    "make_optimizer",
    "newlines_per_token",
    "read_labels",
    "refresh_prm",
    "select",
    "split_lines",
    "train_prm",
]
