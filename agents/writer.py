"""Line by line from a sampler that writes whole programs: what `predict` needs."""

from collections.abc import Sequence
from typing import Any

from codegym.episode import END_OF_PROGRAM
from prm.alignment import split_lines
from prm.completion import Completer, Completion


class LineWriter:
    """Answers an observation with the next line.

    The sampler writes on to the end of the program; as long as the next observations are what it foresaw,
    its further lines are the next answers, and nothing is tokenised anew.

    Args:
        sampler: The policy.
        tokenizer: Its tokenizer.
        max_new_tokens: Limit per program.
        temperature: Of what is drawn, unless the likeliest tokens are asked for.

    Attributes:
        n_drawn: Batches drawn so far: the seed of the next.
    """

    def __init__(
        self, sampler: Completer, tokenizer: Any, max_new_tokens: int, *, temperature: float = 1.0
    ) -> None:
        self.sampler, self.tokenizer, self.max_new_tokens = sampler, tokenizer, max_new_tokens
        self.temperature = temperature
        self._foreseen: dict[tuple[str, bool], list[str]] = {}
        self.n_drawn = 0

    def forget(self) -> None:
        """Drop what was foreseen: the policy has changed."""
        self._foreseen.clear()

    def next_lines(self, texts: Sequence[str], deterministic: bool) -> list[str]:
        """The next line, or END_OF_PROGRAM, after each text."""
        unknown = [text for text in texts if (text, deterministic) not in self._foreseen]
        plans: dict[str, list[list[str]]] = {}  # one for each time that a text is there
        for text, plan in zip(unknown, self._write(unknown, deterministic) if unknown else (), strict=True):
            plans.setdefault(text, []).append(plan)
        lines = []
        for text in texts:
            known = plans[text].pop(0) if text in plans else self._foreseen.pop((text, deterministic), None)
            # the same foreseen text twice in one call: its plan has just been used up
            plan = known or self._write([text], deterministic)[0]
            line, rest = plan[0], plan[1:]
            if rest:
                self._foreseen[f"{text}{line}\n", deterministic] = rest
            lines.append(line)
        return lines

    def complete(self, texts: Sequence[str], deterministic: bool) -> list[Completion]:
        """The rest of the program after each text."""
        drawn = self.sampler.sample(
            self.tokenizer(list(texts))["input_ids"],
            max_new_tokens=self.max_new_tokens,
            temperature=0.0 if deterministic else self.temperature,
            seed=self.n_drawn,
        )
        return [group[0] for group in drawn]

    def _write(self, texts: Sequence[str], deterministic: bool) -> list[list[str]]:
        self.n_drawn += 1
        return [
            [*split_lines(rest.text), *([END_OF_PROGRAM] if rest.finished else [])] or [""]
            for rest in self.complete(texts, deterministic)
        ]
