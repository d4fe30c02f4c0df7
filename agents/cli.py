"""The `codegym` command."""

import logging
import sys
from collections.abc import Sequence

from codegym.errors import CodegymError
from codegym.table import resolve

COMMANDS = {
    "psgpo": "agents.commands.psgpo:main",
    "train": "agents.commands.train:main",
    "judge": "agents.commands.judge:main",
    "label": "agents.commands.label:main",
    "train-prm": "agents.commands.train_prm:main",
    "tasks": "agents.commands.tasks:main",
    "doctor": "agents.commands.doctor:main",
    "eval-prm": "agents.commands.eval_prm:main",
    "serve-prm": "agents.commands.serve_prm:main",
}
SUMMARY = {
    "psgpo": "run the whole method: SFT, RL baseline, labels, PRM, PSGPO, oracle, evaluation, report",
    "train": "train one agent (psgpo, grpo or rloo) on one task source, resumably",
    "judge": "judge files against a task's tests",
    "label": "label the lines of programs, resumably, or show labels beside tokens",
    "train-prm": "train a process reward model on labelled programs, resumably",
    "tasks": "list task sources, count the tasks of one, or show a task with its tests",
    "doctor": "examine a task set and a reward scheme before anyone trains on them",
    "eval-prm": "measure a reward model: metrics, best of n, hack probes, report with heat maps",
    "serve-prm": "serve a reward model to environments in many processes",
}
BAD_PATH = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
BAD_INPUT = 2
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status: 2 for bad input, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_usage())
        return 0 if arguments else BAD_INPUT
    try:
        command = resolve(COMMANDS, arguments[0], "command")
        status: int = command(arguments[1:])
    except (CodegymError, ValueError, *BAD_PATH) as error:
        sys.stderr.write(f"codegym: {error}\n")
        return BAD_INPUT
    except KeyboardInterrupt:
        sys.stderr.write(
            "codegym: interrupted; the same command goes on from the last finished unit of work\n"
        )
        return INTERRUPTED
    return status


def _usage() -> str:
    width = max(map(len, SUMMARY))
    lines = [f"  {name:<{width}}  {summary}" for name, summary in SUMMARY.items()]
    return "\n".join(
        ["usage: codegym COMMAND [OPTION ...]", "", *lines, "", "codegym COMMAND --help tells more", ""]
    )


def entry() -> None:
    """Entry point of the installed script."""
    sys.exit(main())
