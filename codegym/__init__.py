"""codegym: process rewards for code models. Importing it registers `CodeGen-v0`; it never imports torch."""

import gymnasium

from codegym.env import CodeGenEnv
from codegym.episode import END_OF_PROGRAM, Episode
from codegym.errors import (
    CodegymError,
    MissingExtraError,
    SandboxError,
    ScorerError,
    TaskError,
    TaskSourceError,
    UnknownNameError,
)
from codegym.judge import JUDGES, Judge, make_judge
from codegym.rewards import REWARD_SCHEMES, LineScorer, RewardScheme, make_scheme
from codegym.rewards.vector import VectorRewardWrapper
from codegym.rewards.wrapper import RewardWrapper
from codegym.spaces import CodeSpace
from codegym.task import AssertionTest, CallTest, StdioTest, Task, TestCase
from codegym.tasks import TASK_SOURCES, load_tasks
from codegym.vector import CodeGenVectorEnv
from codegym.verdict import Judgement, Verdict
from codegym.wrappers import LineChoices, ProgramActions, TokenActions

__all__ = [
    "END_OF_PROGRAM",
    "JUDGES",
    "REWARD_SCHEMES",
    "TASK_SOURCES",
    "AssertionTest",
    "CallTest",
    "CodeGenEnv",
    "CodeGenVectorEnv",
    "CodeSpace",
    "CodegymError",
    "Episode",
    "Judge",
    "Judgement",
    "LineChoices",
    "LineScorer",
    "MissingExtraError",
    "ProgramActions",
    "RewardScheme",
    "RewardWrapper",
    "SandboxError",
    "ScorerError",
    "StdioTest",
    "Task",
    "TaskError",
    "TaskSourceError",
    "TestCase",
    "TokenActions",
    "UnknownNameError",
    "VectorRewardWrapper",
    "Verdict",
    "load_tasks",
    "make_judge",
    "make_scheme",
]

gymnasium.register(
    id="CodeGen-v0",
    entry_point="codegym.env:CodeGenEnv",
    vector_entry_point="codegym.vector:CodeGenVectorEnv",
)
