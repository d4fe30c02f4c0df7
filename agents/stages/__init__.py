"""The stages of the main job, in order. Each reads files and writes files; its metrics go into its marker."""

from agents.stages.context import Context, Stage
from agents.stages.evaluate import evaluate, report
from agents.stages.labels import collect_programs, label_programs
from agents.stages.prm import train_reward_model
from agents.stages.rl import train_baseline, train_oracle, train_psgpo
from agents.stages.sft import train_start

__all__ = ["STAGES", "Context", "Stage"]

STAGES = {
    "sft": Stage(work=train_start),
    "baseline": Stage(work=train_baseline, needs=("sft",)),
    "collect": Stage(work=collect_programs, needs=("baseline",)),
    "label": Stage(work=label_programs, needs=("collect",)),
    "prm": Stage(work=train_reward_model, needs=("label",)),
    "psgpo": Stage(work=train_psgpo, needs=("prm",)),
    "oracle": Stage(work=train_oracle, needs=("sft",)),
    "evaluate": Stage(work=evaluate, needs=("sft", "baseline", "prm", "psgpo", "oracle")),
    "report": Stage(work=report),
}
