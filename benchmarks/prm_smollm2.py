"""A reward model of a real pretrained model: SmolLM2-135M-Instruct on easy MBPP or HumanEval tasks.

The model is asked in its chat template, and its turn is begun with the function's signature and `result =`:
the tokens it samples are the function's body, line by line, and the first label is that of the line so begun.
A body ends at the closing fence, at the end of the turn, or with the first line that is not indented: all
three are single tokens, named as end-of-text tokens, so nothing is cut or tokenised again. A body's last line
therefore has no newline, and its completions may still go on in it.

A first pass over short tasks finds those that the model passes sometimes. Their programs are labelled by
binary search with the model itself as completer, and the reward models are tested on tasks of their own. Pass
rates are not comparable with published ones: the tasks are chosen, and the signature is given.
"""

import ast
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from hashlib import sha256
from typing import Any

import torch

from agents.samplers.transformers import TransformersSampler
from benchmarks.markdown import table_lines
from benchmarks.prm_arms import Arm, Study, arm_table, rerank_table
from codegym.task import Task
from prm.config import PRMConfig
from prm.labeling import BinarySearchLabeler
from prm.lora import LoRAConfig
from prm.program import LabeledProgram, SampledProgram
from prm.selection import label_statistics
from prm.store import CompletionStore

POLICY = "smollm2"
SYSTEM = "You write Python functions."
BEGUN = "\n    result ="
"""The answer's beginning after the signature: left alone, the model crams all into one line: no process."""
FENCE = "```"
DECODING_COST = 2.0
"""Time per sampled token over that per token read, for batches of the size used here."""
TRAINING_COST = {"lora": 2.5, "head": 1.2}
"""Time per token and pass of training over that per token read."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much of everything."""

    scouted: int  # tasks of the first pass, those with the shortest references
    scouts: int  # programs of each
    lowest_rate: float  # of them that must pass for a task to be gone on with
    tasks: int  # most tasks to go on with
    n: int  # programs of each
    labeled: int  # most failing programs to label
    k: int  # completions per prefix
    max_new_tokens: int  # of a program
    epochs: float  # of both reward models
    temperature: float = 0.6  # of all sampling


SCALES = {
    "smoke": Scale(
        scouted=12, scouts=2, lowest_rate=0.0, tasks=6, n=4, labeled=8, k=2, max_new_tokens=32, epochs=1.0
    ),
    "small": Scale(
        scouted=240,
        scouts=3,
        lowest_rate=0.1,
        tasks=40,
        n=12,
        labeled=260,
        k=4,
        max_new_tokens=72,
        epochs=3.0,
    ),
}
MEAN_TOKENS = 35
"""Tokens of a program, for the estimate of time."""
TEST_FRACTION = 0.4
"""Of the tasks: their programs are for testing."""


@dataclass(frozen=True, kw_only=True)
class ChatTask(Task):
    """A task that is asked in a chat: the prompt is no code, but the answer has been begun with some.

    Attributes:
        opening: Code at the prompt's end that programs go on from.
    """

    opening: str

    def assemble(self, completion: str) -> str:
        """Return the whole module that is judged."""
        return self.opening + completion


def chat_task(task: Task, tokenizer: Any) -> ChatTask | None:
    """Ask a task in the model's chat template and begin the answer; None if there is no signature to give."""
    asked = _completion(task) if f"def {task.entry_point}(" in task.prompt else _question(task)
    if asked is None:
        return None
    question, opening = asked
    turns = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": question},
    ]
    chat = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    kept = {field.name: getattr(task, field.name) for field in fields(Task)}
    kept |= {"prompt": f"{chat}{FENCE}python\n{opening}", "prompt_is_code": False, "reference": None}
    return ChatTask(**kept, opening=opening)


def _completion(task: Task) -> tuple[str, str]:
    """HumanEval: the prompt is the beginning of the function."""
    return "Complete this function.", task.prompt.rstrip("\n") + BEGUN


def _question(task: Task) -> tuple[str, str] | None:
    """MBPP: the prompt is a question in a docstring; the reference has the signature."""
    for node in ast.parse(task.reference or "").body:
        if isinstance(node, ast.FunctionDef) and node.name == task.entry_point:
            question = ast.get_docstring(ast.parse(task.prompt), clean=False) or ""
            return question.strip(), f"def {node.name}({ast.unparse(node.args)}):{BEGUN}"
    return None


def body_ends(tokenizer: Any) -> list[int]:
    """Tokens that end a function's body: the turn's end, a fence, a newline without indentation after it."""
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    ends = [token for token, text in enumerate(texts) if FENCE in text or text.endswith("\n")]
    return [tokenizer.eos_token_id, *ends]


class SmolLM2Study:
    """The whole study.

    Args:
        study: Keeps everything.
        model: The causal LM.
        tokenizer: Its tokenizer.
        tasks: MBPP or HumanEval.
        scale: How much.
        seed: Of everything.
    """

    def __init__(
        self, study: Study, model: Any, tokenizer: Any, tasks: Sequence[Task], scale: Scale, seed: int
    ) -> None:
        self.study, self.tokenizer, self.scale, self.seed = study, tokenizer, scale, seed
        model.generation_config.eos_token_id = body_ends(tokenizer)
        self.model = model
        self.sampler = TransformersSampler(model, tokenizer, batch_size=64)
        shortest = sorted(tasks, key=lambda task: (len(task.reference or ""), task.task_id))
        asked = [chat for task in shortest if (chat := chat_task(task, tokenizer)) is not None]
        self.scouted = {task.task_id: task for task in asked[: scale.scouted]}

    def measure(self) -> str:
        """Do whatever has no row yet, and return the report."""
        self.study.console.print(f"about {self.expected_seconds() / 60:.0f} minutes from the start")
        held_out = [item for item in self.labels if item.program.task_id in self.held_out]
        for arm in self.arms():
            self.study.train(arm, {"held-out tasks": held_out}, self.tasks)
            programs = [program for program in self.programs if program.task_id in self.held_out]
            sizes = [n for n in (1, 2, 4, 8) if n <= self.scale.n]
            self.study.rerank(arm, "held-out tasks", programs, self.tasks, sizes)
            self.study.page(arm, held_out, self.tasks)
        return self.report()

    def arms(self) -> list[Arm]:
        """A low-rank adapter on the whole model, and the head alone."""
        train = [item for item in self.labels if item.program.task_id not in self.held_out]
        # so few tasks are better trained on than used to choose among the weights of one run
        common: dict[str, Any] = {
            "validation_fraction": 0.0,
            "epochs": self.scale.epochs, "batch_size": 16, "micro_batch_tokens": 2048,
            "checkpoint_every": 8, "seed": self.seed,
        }  # fmt: skip
        return [
            Arm(name="lora", labels=train, config=PRMConfig(lora=LoRAConfig(), learning_rate=5e-4, **common)),
            Arm(name="head", labels=train, config=PRMConfig(train="head", learning_rate=2e-3, **common)),
        ]

    # --- programs and labels --------------------------------------------------------------------------------

    @cached_property
    def tasks(self) -> dict[str, ChatTask]:
        """Tasks that the first pass solved sometimes, those solved about half the time first.

        Raises:
            ValueError: If it solved too few to train on some and test on others.
        """
        scouts = self._sample("scouts", self.scouted, n=self.scale.scouts, seed=self.seed)
        rates = {
            task_id: sum(p.passed for p in scouts if p.task_id == task_id) / self.scale.scouts
            for task_id in self.scouted
        }
        sometimes = [task_id for task_id, rate in rates.items() if rate >= self.scale.lowest_rate]
        sometimes.sort(key=lambda task_id: abs(rates[task_id] - 0.5))
        chosen = sorted(sometimes[: self.scale.tasks])
        if len(chosen) < 2:
            raise ValueError(f"{len(chosen)} tasks were solved: too few to train on some and test on others")
        return {task_id: self.scouted[task_id] for task_id in chosen}

    @cached_property
    def programs(self) -> list[SampledProgram]:
        """Fresh programs for the chosen tasks: those of the first pass were selected for passing."""
        return self._sample("programs", self.tasks, n=self.scale.n, seed=self.seed + 1)

    @cached_property
    def labels(self) -> list[LabeledProgram]:
        """Labels of all programs that pass and of failing ones, as many as the scale pays for."""
        failing = [program for program in self.programs if not program.passed]
        # one of every task, then another of every task
        numbers = {p.program_id: int(p.program_id.rsplit("/", 1)[1]) for p in failing}
        paid = sorted(failing, key=lambda p: numbers[p.program_id])[: self.scale.labeled]
        kept = {program.program_id for program in paid}
        labeler = BinarySearchLabeler(
            self.sampler, self.study.judge, self.tokenizer, k=self.scale.k, draws_at_once=2,
            max_new_tokens=self.scale.max_new_tokens, temperature=self.scale.temperature, seed=self.seed,
            store=CompletionStore(self.study.out / "completions.jsonl"),
        )  # fmt: skip
        wanted = [p for p in self.programs if p.lines and (p.passed or p.program_id in kept)]
        return self.study.labels("labels", labeler, wanted, self.tasks, chunk=64)

    def _sample(self, name: str, tasks: Mapping[str, Task], *, n: int, seed: int) -> list[SampledProgram]:
        return self.study.programs(
            name, {POLICY: self.sampler}, list(tasks.values()), n=n, seed=seed, at_once=-(-64 // n),
            max_new_tokens=self.scale.max_new_tokens, temperature=self.scale.temperature,
        )  # fmt: skip

    @cached_property
    def held_out(self) -> set[str]:
        """Tasks for testing, by a hash of seed and id: one at least, and never all."""
        order = sorted(self.tasks, key=lambda task_id: sha256(f"{self.seed}:{task_id}".encode()).digest())
        return set(order[: max(1, round(TEST_FRACTION * len(order)))])

    # --- cost and report ------------------------------------------------------------------------------------

    def expected_seconds(self) -> float:
        """Time that everything takes from the start, from the time of reading some tokens now."""
        scale, rate = self.scale, reading_rate(self.model)
        prompts = [len(self.tokenizer.encode(task.prompt)) for task in self.scouted.values()]
        prompt, written = sum(prompts) / len(prompts), MEAN_TOKENS
        probes = 2.0 * scale.labeled  # a function of three or four lines
        read = prompt * (scale.scouted + scale.tasks) + (prompt + written / 2) * probes * scale.k / 2
        sampled: float = written * (scale.scouted * scale.scouts + scale.tasks * scale.n)
        sampled += written / 2 * probes * scale.k
        trained = (prompt + written) * scale.tasks * scale.n * (1 - TEST_FRACTION) * scale.epochs
        tokens = read + DECODING_COST * sampled + trained * sum(TRAINING_COST.values())
        return tokens / rate

    def report(self) -> str:
        """Every table as Markdown."""
        rows = self.study.rows
        found = label_statistics(self.labels)
        lines = ["## Labels", "", *table_lines(("number", "value"), list(found.items()))]
        lines += ["", "## Held-out tasks", "", *arm_table(rows, [arm.name for arm in self.arms()])]
        lines += ["", "## Best of n", "", *rerank_table(rows), ""]
        return "\n".join(lines)


def reading_rate(model: Any) -> float:
    """Tokens per second that the model reads now, in batches as training has them."""
    ids = torch.zeros((8, 128), dtype=torch.long)
    with torch.no_grad():
        model(ids, logits_to_keep=1)
        began = time.perf_counter()
        model(ids, logits_to_keep=1)
    return ids.numel() / (time.perf_counter() - began)
