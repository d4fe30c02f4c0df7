"""What the README shows must run as shown."""

import re
from pathlib import Path

import pytest

import codegym
from agents.commands.psgpo import parse
from agents.stages import STAGES

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")


BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.S)
PARAMETERS = [
    pytest.param(block, marks=[pytest.mark.slow] if ".learn(" in block else [], id=f"block {number}")
    for number, block in enumerate(BLOCKS, start=1)
]


@pytest.mark.parametrize("block", PARAMETERS)
def test_a_python_block_runs_and_prints_what_its_comments_say(block, capsys):
    exec(compile(block, str(README), "exec"), {"__name__": "readme"})
    promised = re.findall(r"print\(.*\)  # (.*)", block)
    if promised:
        assert capsys.readouterr().out.splitlines() == promised


def test_the_first_python_block_is_a_whole_session():
    assert len(BLOCKS[0].strip().splitlines()) <= 10
    assert "passed 1.0" in BLOCKS[0]


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
