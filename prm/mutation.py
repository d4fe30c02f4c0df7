"""Labels without a model: a known bug is put into a reference, so the line where it goes wrong is known."""

import logging
from collections.abc import Mapping, Sequence
from random import Random

from codegym.errors import TaskError
from codegym.judge import Judge
from codegym.table import resolve
from codegym.task import Task
from prm.alignment import split_lines
from prm.collect import TextTokenizer, program_from_text
from prm.labeling import task_of
from prm.program import LabeledProgram, SampledProgram
from prm.segmentation import labels_of_lines, step_ends

log = logging.getLogger(__name__)

POLICY = "mutation"
"""The policy of programs that were made by mutation."""

MUTATORS = {
    "bugs": "prm.mutators:documented_bugs",
    "ast": "prm.mutators:changed_expressions",
}
"""Ways to spoil a reference: functions of a task that yield completions with one bug each."""


class MutationLabeler:
    """Labels mutants of a task's reference: right before the first line that differs, wrong from it on.

    What is exact: the lines before the mutated one begin a right program, so a right program is within their
    reach; and a mutant that fails its tests fails because of the mutated line, the only thing wrong with it.
    A mutant that passes is right throughout. What is not: a later line could still repair the damage, which
    labels by this rule do not see; and of a mutated step of several lines all are wrong from the first that
    differs, where execution finds a wrong value only at the step's last line. No policy's programs stand as
    close to the reference as mutants do: a reward model trained on them alone is weak on a policy.

    Args:
        step: What a step is, an entry of `prm.segmentation.STEPS`; a wrong line makes its whole step wrong.
    """

    source = "mutation"

    def __init__(self, *, step: str = "line") -> None:
        step_ends([], step)
        self.step = step

    def label(self, programs: Sequence[SampledProgram], tasks: Mapping[str, Task]) -> list[LabeledProgram]:
        """Label every mutant.

        Raises:
            TaskError: If a task is missing or has no reference.
            ValueError: If a program was not made by `mutate`: nothing would be known about it.
        """
        return [self._labeled(program, task_of(program, tasks)) for program in programs]

    def _labeled(self, program: SampledProgram, task: Task) -> LabeledProgram:
        if program.policy != POLICY:
            raise ValueError(
                f"program {program.program_id!r} was written by {program.policy!r}: "
                "only mutants of a reference can be labelled by comparing them with it"
            )
        lines = program.lines
        n_right = _common_lines(lines, split_lines(_reference(task)))
        ends = step_ends(lines, self.step)
        values = [1.0 if program.passed or end < n_right else -1.0 for end in ends]
        return LabeledProgram(
            program=program,
            labels=labels_of_lines(lines, ends, values),
            source=self.source,
            cost={"completions": 0, "tokens": 0, "verdicts": 1},
        )


def mutate(
    tasks: Sequence[Task],
    judge: Judge,
    tokenizer: TextTokenizer,
    *,
    n: int,
    mutators: Sequence[str] = ("bugs", "ast"),
    keep_passing: bool = False,
    seed: int = 0,
) -> list[SampledProgram]:
    """Make at most `n` different mutants of each task's reference, judged all in one batch.

    Args:
        tasks: Tasks with references. One whose reference fails its own tests gives no mutants.
        judge: Judges references and mutants.
        tokenizer: Turns them into tokens; prompt and completion apart, as a policy is trained.
        n: Mutants per task, drawn from all that the mutators make.
        mutators: Entries of `MUTATORS`.
        keep_passing: Keep mutants that pass (the bug changed nothing that the tests see) beside those that
            fail, for negatives and positives alike.
        seed: Of the draw; a task's mutants depend on it and on the task alone.

    Returns:
        The mutants, task by task.

    Raises:
        TaskError: If a task has no reference.
        UnknownNameError: If there is no such mutator.
        ValueError: If the tokenizer has no end-of-text token.
    """
    made = [(task, _draw_mutants(task, n, mutators, seed)) for task in tasks]
    texts = [(task, text) for task, drawn in made for text in (_reference(task), *drawn)]
    judgements = iter(judge.judge([(task, task.assemble(text)) for task, text in texts]))
    programs = []
    for task, drawn in made:
        sound = next(judgements).passed
        if not sound:
            log.warning("the reference of task %r fails its own tests: no mutants of it", task.task_id)
        for number, (text, judgement) in enumerate(zip(drawn, judgements, strict=False)):
            if sound and (keep_passing or not judgement.passed):
                programs.append(
                    program_from_text(
                        tokenizer,
                        program_id=f"{POLICY}/{task.task_id}/{number}",
                        task_id=task.task_id,
                        policy=POLICY,
                        prompt=task.prompt,
                        completion=text,
                        verdict=judgement.verdict,
                        results=judgement.results,
                    )
                )
    return programs


def _draw_mutants(task: Task, n: int, mutators: Sequence[str], seed: int) -> list[str]:
    makers = [resolve(MUTATORS, name, "mutator") for name in mutators]
    mutants = dict.fromkeys(text for maker in makers for text in maker(task))
    mutants.pop(_reference(task), None)
    return Random(f"{seed}/{task.task_id}").sample(list(mutants), k=min(n, len(mutants)))


def _reference(task: Task) -> str:
    if task.reference is None:
        raise TaskError(f"task {task.task_id!r} has no reference to mutate")
    return task.reference


def _common_lines(lines: Sequence[str], reference: Sequence[str]) -> int:
    """Lines before the first that differs."""
    pairs = enumerate(zip(lines, reference, strict=False))
    return next((at for at, (ours, theirs) in pairs if ours != theirs), min(len(lines), len(reference)))
