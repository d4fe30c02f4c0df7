"""The state of `CodeGen-v0`: an immutable record of one program being written."""

from dataclasses import dataclass, replace

from codegym.task import Task
from codegym.verdict import Judgement

END_OF_PROGRAM = "\x00end-of-program"
"""The action that ends the program. Source text cannot hold a NUL, so no line can equal it.

The NUL stands first because NumPy drops those at the end of its strings.
"""

CUT_PROGRAM = "\x00cut-program"
"""What a wrapper with a limit of its own sends to have the program judged: a truncation, not an action."""


def is_neutral(line: str) -> bool:
    """Whether a line computes nothing, blank or only a comment: it earns no reward and has the label 0."""
    code = line.strip()
    return not code or code.startswith("#")


@dataclass(frozen=True, kw_only=True)
class Episode:
    """A task and the lines written so far.

    Attributes:
        task: The problem.
        lines: Lines written, each without its newline.
        terminated: Whether the agent ended the program itself (END_OF_PROGRAM).
        truncated: Whether a limit (lines, characters, tokens) ended it.
        judgement: The judge's record, once the episode is over.
    """

    task: Task
    lines: tuple[str, ...] = ()
    terminated: bool = False
    truncated: bool = False
    judgement: Judgement | None = None

    @property
    def over(self) -> bool:
        """Whether the program is finished, one way or the other."""
        return self.terminated or self.truncated

    @property
    def n_actions(self) -> int:
        """Actions taken: one per line, and one more for END_OF_PROGRAM."""
        return len(self.lines) + int(self.terminated)

    @property
    def completion(self) -> str:
        """The lines as text, each ended by its newline."""
        return "".join(f"{line}\n" for line in self.lines)

    @property
    def text(self) -> str:
        """Prompt and lines: what the agent observes."""
        return self.task.prompt + self.completion

    @property
    def source(self) -> str:
        """The module that the judge runs."""
        return self.task.assemble(self.completion)

    def write(self, line: str) -> "Episode":
        """Return the episode with one more line."""
        return replace(self, lines=(*self.lines, line))
