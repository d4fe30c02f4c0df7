"""prm: label the lines of programs, train process reward models on them, and measure how good they are."""

from prm.agreement import compare_labels
from prm.alignment import line_end_tokens, newlines_per_token, split_lines
from prm.audit import audit
from prm.bootstrap import Estimate
from prm.collect import collect
from prm.completion import Completer, Completion
from prm.config import PRMConfig
from prm.dataset import (
    from_stepwise,
    read_parquet,
    read_stepwise,
    to_stepwise,
    write_parquet,
    write_stepwise,
)
from prm.evaluation import PRMMetrics, evaluate_prm
from prm.full_scan import FullScanLabeler
from prm.hacks import hack_gains
from prm.heads import HEADS
from prm.label_files import read_label_files
from prm.labelers import LABELERS, make_labeler
from prm.labeling import BinarySearchLabeler, Labeler, label_to_file, read_labels
from prm.lora import LoRAConfig
from prm.model import ProcessRewardModel
from prm.mutation import MutationLabeler, mutate
from prm.optimization import RefreshReport, make_optimizer, refresh_prm
from prm.program import LabeledProgram, SampledProgram
from prm.reference import ReferenceLabeler, ReferenceScorer
from prm.reranking import AGGREGATES, Reranking, rerank
from prm.selection import SampleClass, SelectionConfig, label_statistics, select, strategy_statistics
from prm.serving import ScorerServer
from prm.store import CompletionStore
from prm.training import PRMReport, train_prm

__all__ = [
    "AGGREGATES",
    "HEADS",
    "LABELERS",
    "BinarySearchLabeler",
    "Completer",
    "Completion",
    "CompletionStore",
    "Estimate",
    "FullScanLabeler",
    "LabeledProgram",
    "Labeler",
    "LoRAConfig",
    "MutationLabeler",
    "PRMConfig",
    "PRMMetrics",
    "PRMReport",
    "ProcessRewardModel",
    "ReferenceLabeler",
    "ReferenceScorer",
    "RefreshReport",
    "Reranking",
    "SampleClass",
    "SampledProgram",
    "ScorerServer",
    "SelectionConfig",
    "audit",
    "collect",
    "compare_labels",
    "evaluate_prm",
    "from_stepwise",
    "hack_gains",
    "label_statistics",
    "label_to_file",
    "line_end_tokens",
    "make_labeler",
    "make_optimizer",
    "mutate",
    "newlines_per_token",
    "read_label_files",
    "read_labels",
    "read_parquet",
    "read_stepwise",
    "refresh_prm",
    "rerank",
    "select",
    "split_lines",
    "strategy_statistics",
    "to_stepwise",
    "train_prm",
    "write_parquet",
    "write_stepwise",
]
