"""What the README shows must run as shown."""

import re
from pathlib import Path

import pytest

import codegym
from agents.commands.psgpo import parse
from agents.stages import STAGES

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")


def test_the_python_session_prints_what_its_comment_says(capsys):
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    assert len(blocks) == 1
    exec(compile(blocks[0], str(README), "exec"), {})
    promised = re.findall(r"print\(.*\)  # (.*)", blocks[0])
    assert capsys.readouterr().out.splitlines() == promised == ["passed 1.0"]


COMMANDS = re.findall(r"^codegym psgpo (--.*?) {2,}", TEXT, re.M)


@pytest.mark.parametrize("options", [command for command in COMMANDS if command != "--help"])
def test_every_command_line_shown_is_valid(options):
    parse(options.split())


def test_every_stage_and_scheme_is_in_its_table():
    for name in (*STAGES, *codegym.REWARD_SCHEMES):
        assert re.search(rf"^\| `{name}` \|", TEXT, re.M), name


def test_two_commands_do_all_set_up():
    for marker, last in (("main job", "codegym psgpo"), ("tests", "pytest")):
        block = re.search(rf"<!-- {marker} -->\s*```bash\n(.*?)```", TEXT, re.S)
        assert block is not None
        (command,) = block.group(1).strip().splitlines()
        assert command.endswith(f"&& {last}")
