"""Programs to label: sampled from a policy, judged by their tests."""

from collections.abc import Sequence
from typing import Protocol

from codegym.judge import Judge
from codegym.task import Task
from codegym.verdict import Verdict
from prm.completion import Completer
from prm.program import SampledProgram


class Encoder(Protocol):
    """The part of a Hugging Face tokenizer that turns prompts into tokens."""

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, with the special tokens that the model expects in front."""
        ...


class TextTokenizer(Protocol):
    """The part of a Hugging Face tokenizer that programs without a policy's tokens need."""

    @property
    def eos_token_id(self) -> int | None:
        """Ends a program."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool = ...) -> list[int]:
        """Tokens of a text."""
        ...


def collect(
    completer: Completer,
    tasks: Sequence[Task],
    judge: Judge,
    tokenizer: Encoder,
    *,
    policy: str,
    n: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
) -> list[SampledProgram]:
    """Sample `n` programs per task in one batch and judge them in one batch.

    Args:
        completer: The policy.
        tasks: What to write programs for.
        judge: Judges them.
        tokenizer: The policy's tokenizer.
        policy: Names the policy in the programs' ids, for example "baseline/step-26".
        n: Programs per task.
        max_new_tokens: A program that reaches it is cut and judged as it is.
        temperature: Of the sampling.
        seed: The same seed, tasks and policy give the same programs.

    Returns:
        The programs, task by task.
    """
    prompts = [tuple(tokenizer.encode(task.prompt)) for task in tasks]
    drawn = completer.sample(prompts, n=n, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    written = [
        (task, prompt, number, completion)
        for task, prompt, completions in zip(tasks, prompts, drawn, strict=True)
        for number, completion in enumerate(completions)
    ]
    judgements = judge.judge([(task, task.assemble(completion.text)) for task, _, _, completion in written])
    return [
        SampledProgram(
            program_id=f"{policy}/{task.task_id}/{number}",
            task_id=task.task_id,
            policy=policy,
            prompt_ids=prompt,
            token_ids=completion.token_ids,
            completion=completion.text,
            finished=completion.finished,
            verdict=judgement.verdict,
            results=judgement.results,
        )
        for (task, prompt, number, completion), judgement in zip(written, judgements, strict=True)
    ]


def program_from_text(
    tokenizer: TextTokenizer,
    *,
    program_id: str,
    task_id: str,
    policy: str,
    prompt: str,
    completion: str,
    verdict: Verdict,
    results: tuple[bool, ...],
) -> SampledProgram:
    """A finished program that no policy sampled: prompt and completion tokenised apart, as policies see them.

    Raises:
        ValueError: If the tokenizer has no end-of-text token.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer names no end-of-text token (eos_token_id), which ends a program")
    return SampledProgram(
        program_id=program_id,
        task_id=task_id,
        policy=policy,
        prompt_ids=tuple(tokenizer.encode(prompt)),
        token_ids=(*tokenizer.encode(completion, add_special_tokens=False), tokenizer.eos_token_id),
        completion=completion,
        finished=True,
        verdict=verdict,
        results=results,
    )
