"""What a policy wrote and earned, as padded tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codegym.episode import Episode
from codegym.task import Task
from prm.alignment import line_end_tokens, split_lines
from prm.completion import Completion
from prm.program import SampledProgram


@dataclass(frozen=True, kw_only=True)
class RolloutBatch:
    """B prompts with their completions, padded on the right to T tokens.

    Everything but `ids` is aligned to the token it speaks of: entry i is about having written token i.

    Attributes:
        ids: Prompt, completion, padding. [B, T]
        mask: True on the completion's tokens. [B, T]
        logprobs: Log-probability of each token when it was drawn; 0 outside `mask`. [B, T]
        rewards: What the reward scheme paid for each token; 0 outside `mask`. [B, T]
        prompt_lengths: Tokens before the completion. [B]
        lengths: Tokens of prompt and completion together. [B]
    """

    ids: Tensor
    mask: Tensor
    logprobs: Tensor
    rewards: Tensor
    prompt_lengths: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_tokens(self) -> int:
        """Tokens that the policy wrote."""
        return int(self.mask.sum())

    def some(self, n_rows: int) -> "RolloutBatch":
        """About `n_rows` of the rows, evenly spaced, as wide as before."""
        rows = slice(0, None, max(1, len(self) // n_rows))
        return RolloutBatch(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """What one iteration wrote and what became of it; one entry per program.

    Attributes:
        prompts: Token ids.
        completions: What was drawn; samples of one task stand together.
        episodes: The same as judged episodes.
        credits: What the reward scheme paid, one number per action. [n_actions] each
        batch: All of it as tensors.
    """

    prompts: list[list[int]]
    completions: list[Completion]
    episodes: list[Episode]
    credits: list[NDArray[np.float64]]
    batch: RolloutBatch


def draw_tasks(tasks: Sequence[Task], n_tasks: int, *, iteration: int, seed: int) -> list[Task]:
    """The tasks of one iteration: all tasks in turn, each round of them in a fresh order."""
    orders: dict[int, NDArray[np.int64]] = {}
    drawn = []
    for place in range(iteration * n_tasks, (iteration + 1) * n_tasks):
        lap, index = divmod(place, len(tasks))
        if lap not in orders:
            orders[lap] = np.random.default_rng([seed, lap]).permutation(len(tasks))
        drawn.append(tasks[orders[lap][index]])
    return drawn


def make_episode(task: Task, completion: Completion) -> Episode:
    """The episode that writes this completion, not judged yet; cut by the token limit means truncated."""
    return Episode(
        task=task,
        lines=tuple(split_lines(completion.text)),
        terminated=completion.finished,
        truncated=not completion.finished,
    )


def to_program(
    prompt: Sequence[int], completion: Completion, episode: Episode, program_id: str
) -> SampledProgram:
    """The judged episode with its exact tokens, as the reward model's training data stores it.

    Args:
        prompt: The prompt's tokens.
        completion: What was drawn after it.
        episode: The judged episode.
        program_id: "<policy>/<sample>", where the policy may hold slashes too.
    """
    if episode.judgement is None:
        raise ValueError(f"the episode of task {episode.task.task_id!r} has not been judged")
    return SampledProgram(
        program_id=program_id,
        task_id=episode.task.task_id,
        policy=program_id.rpartition("/")[0],
        prompt_ids=tuple(prompt),
        token_ids=completion.token_ids,
        completion=completion.text,
        finished=completion.finished,
        verdict=episode.judgement.verdict,
        results=episode.judgement.results,
    )


def place_credit(
    completion: Completion, credit: NDArray[np.float64], newlines: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Put one reward per action on the tokens that took the actions. [tokens].

    A line's reward goes to the token that covers its newline, the end of the program's to the end-of-text
    token. Tokens that end several lines, or the last token of a truncated program, collect several rewards.

    Args:
        completion: The tokens.
        credit: One reward per action of its episode. [n_actions]
        newlines: From `prm.alignment.newlines_per_token`. [vocabulary]

    Raises:
        ValueError: If there is not one reward per action.
    """
    n_lines = len(split_lines(completion.text))
    n_actions = n_lines + int(completion.finished)
    if credit.shape != (n_actions,):
        raise ValueError(
            f"expected one reward for each of {n_actions} actions, got an array of shape {credit.shape}"
        )
    written = completion.token_ids[:-1] if completion.finished else completion.token_ids
    rewards = np.zeros(len(completion.token_ids))
    np.add.at(rewards, line_end_tokens(written, n_lines, newlines), credit[:n_lines])
    if completion.finished:
        rewards[-1] += credit[-1]
    return rewards


def place_tokens(
    completions: Sequence[Completion],
    credits: Sequence[NDArray[np.float64]],
    newlines: NDArray[np.int64],
    batch: RolloutBatch,
) -> Tensor:
    """Other numbers per action than those that were paid, placed as `make_batch` places these. [B, T]."""
    placed = np.zeros(batch.rewards.shape, dtype=np.float32)
    starts = batch.prompt_lengths.tolist()
    for row, (completion, credit) in enumerate(zip(completions, credits, strict=True)):
        written = slice(starts[row], starts[row] + len(completion.token_ids))
        placed[row, written] = place_credit(completion, credit, newlines)
    return torch.from_numpy(placed).to(batch.rewards.device)


def make_batch(
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Completion],
    credits: Sequence[NDArray[np.float64]],
    newlines: NDArray[np.int64],
    *,
    pad_id: int = 0,
    device: torch.device | str = "cpu",
) -> RolloutBatch:
    """Pad completions and their credit into one batch.

    Args:
        prompts: Token ids, one sequence per completion.
        completions: What was drawn.
        credits: One reward per action of each. [n_actions] each.
        newlines: From `prm.alignment.newlines_per_token`. [vocabulary]
        pad_id: Any valid token id.
        device: Where the tensors go.

    Raises:
        ValueError: If the sequences do not have the same number of items, or credit does not fit.
    """
    n_rows = len(prompts)
    prompt_lengths = np.array([len(prompt) for prompt in prompts], dtype=np.int64)
    lengths = prompt_lengths + [len(completion.token_ids) for completion in completions]
    ids = np.full((n_rows, int(lengths.max())), pad_id, dtype=np.int64)
    mask = np.zeros(ids.shape, dtype=bool)
    logprobs = np.zeros(ids.shape, dtype=np.float32)
    rewards = np.zeros(ids.shape, dtype=np.float32)
    for row, (prompt, completion, credit) in enumerate(zip(prompts, completions, credits, strict=True)):
        written = slice(len(prompt), int(lengths[row]))
        ids[row, : len(prompt)] = prompt
        ids[row, written] = completion.token_ids
        mask[row, written] = True
        logprobs[row, written] = completion.logprobs
        rewards[row, written] = place_credit(completion, credit, newlines)
    tensors = [
        torch.from_numpy(array).to(device)
        for array in (ids, mask, logprobs, rewards, prompt_lengths, lengths)
    ]
    return RolloutBatch(
        **dict(zip(("ids", "mask", "logprobs", "rewards", "prompt_lengths", "lengths"), tensors, strict=True))
    )
