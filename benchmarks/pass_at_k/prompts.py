"""What a model is asked for a task, and how its program is read out of what it answers."""

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from codegym.task import Task
from codegym.tasks.prompts import is_python

Style: TypeAlias = Literal["chat", "ask", "complete"]
FENCE = "```"
COMPLETE_FUNCTION = "Complete this Python function."
TESTS_SHOWN = "Your code should pass"
FROM_STDIN = "Write a Python program that reads standard input and prints the answer."

BODY_RULE = (
    "the program is the task's prompt and what follows it, up to the first line that is not indented and"
    " begins a new statement"
)
PROGRAM_RULE = (
    "the program goes up to the first line after the definition of the function that is not indented and"
    " begins anything but a definition, an import or a comment; all of it where the task names no function"
)
RULES = {
    ("chat", True): f"Up to the closing fence; {BODY_RULE}.",
    ("chat", False): f"Up to the closing fence; {PROGRAM_RULE}.",
    (
        "ask",
        True,
    ): "The last fenced block, or the whole answer if there is none, put after the task's prompt.",
    ("ask", False): "The last fenced block, or the whole answer if there is none.",
    ("complete", True): f"Up to a fence, if there is one; {BODY_RULE}.",
    ("complete", False): f"Up to a fence, if there is one; {PROGRAM_RULE}.",
}
"""How a program is read out, by style and by whether the prompt begins the function."""

_BLOCK = re.compile(r"^```[^\n`]*\n(.*?)(?:^```|\Z)", re.DOTALL | re.MULTILINE)
_NOTHING = re.compile(r"(?!)")
_DEFINITIONS = re.compile(r"(?:async |def |class |import |from |[@#])")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A task as a model is asked it.

    Attributes:
        task: The task.
        text: All that the model reads before it writes, special tokens included.
        style: "chat" begins the answer with a fenced block, and with the function where the prompt has it;
            "ask" leaves the whole answer to the model; "complete" is the task's prompt as it is.
    """

    task: Task
    text: str
    style: Style

    @property
    def rule(self) -> str:
        """How the program is read out of the answer, in words."""
        return RULES[self.style, begins_function(self.task)]

    def completion(self, answer: str) -> str:
        """What the task assembles a program of, read out of a model's answer."""
        if self.style == "ask":
            return last_block(answer)
        code = answer.split(FENCE, 1)[0]
        if not begins_function(self.task):
            return without_afterwards(code, self.task.entry_point)
        # the line that the prompt was left in ends first
        code = code.removeprefix("\n") if self.style == "chat" else code
        return function_body(self.task.prompt, code)


def ask(task: Task, style: Style, tokenizer: Any) -> Asked:
    """Put a task to a model.

    Args:
        task: The task.
        style: See `Asked`.
        tokenizer: The model's; its chat template is used unless the style is "complete".

    Raises:
        ValueError: If it has no chat template.
    """
    if style == "complete":
        return Asked(task=task, text=task.prompt, style=style)
    if not tokenizer.chat_template:
        raise ValueError(
            f"the prompt style {style!r} needs a chat template, and the tokenizer"
            f" {tokenizer.name_or_path!r} has none: use --prompt complete"
        )
    turns = [{"role": "user", "content": question(task)}]
    chat = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    if style == "chat":
        # without its last newline, which many tokenizers join with the indentation after it
        begun = task.prompt.removesuffix("\n") if begins_function(task) else ""
        chat += f"{FENCE}python\n{begun}"
    return Asked(task=task, text=chat, style=style)


def begins_function(task: Task) -> bool:
    """Whether the prompt is the beginning of the function that the tests call, as HumanEval's are."""
    return task.prompt_is_code and f"def {task.entry_point}(" in task.prompt


def question(task: Task) -> str:
    """The user's turn: the function to complete, or the problem in prose with what is asked for."""
    if begins_function(task):
        return f"{COMPLETE_FUNCTION}\n\n{FENCE}python\n{task.prompt}{FENCE}"
    prose = task.prompt
    if task.prompt_is_code:
        prose = ast.get_docstring(ast.parse(task.prompt), clean=False) or task.prompt
    if not task.entry_point:
        return f"{prose.strip()}\n\n{FROM_STDIN}"
    # MBPP's sources end the text with the tests that are shown
    text, *tests = re.split(r"^(?=assert )", prose.strip(), maxsplit=1, flags=re.MULTILINE)
    return "\n\n".join([text.strip(), *(f"{TESTS_SHOWN}:\n\n{shown}" for shown in tests)])


def stop_tokens(tokenizer: Any) -> list[int]:
    """Tokens that begin with a fence: they end an answer that is inside a block."""
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return [token for token, text in enumerate(texts) if text.lstrip().startswith(FENCE)]


def function_body(prompt: str, code: str) -> str:
    """`code` up to the first line that is not indented and begins a new statement.

    Args:
        prompt: The beginning of the function, with its last newline.
        code: What goes on from there.
    """
    return _up_to_margin(prompt, code, _NOTHING)


def without_afterwards(code: str, entry_point: str | None) -> str:
    """`code` up to what follows the function's definition and is no definition, import or comment: tests."""
    name = re.escape((entry_point or "").split(".")[0])
    defined = re.search(rf"^(?:async )?(?:def|class) {name}\b.*\n?", code, re.MULTILINE)
    if not name or defined is None:
        return code
    return code[: defined.end()] + _up_to_margin(code[: defined.end()], code[defined.end() :], _DEFINITIONS)


def _up_to_margin(before: str, code: str, kept: re.Pattern[str]) -> str:
    """`code` up to the first line that is not indented, unless it begins as `kept` says.

    A line inside brackets or a string may stand at the margin, so what comes before the line must parse.
    """
    lines = code.split("\n")
    for number, line in enumerate(lines):
        if line and not line[0].isspace() and not kept.match(line):
            head = "".join(f"{line}\n" for line in lines[:number])
            if is_python(before + head):
                return head
    return code


def last_block(answer: str) -> str:
    """The content of the last fenced block, even if it is not closed; the answer if there is none."""
    blocks: Sequence[str] = _BLOCK.findall(answer)
    return blocks[-1] if blocks else answer
