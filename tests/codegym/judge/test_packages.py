"""Installed packages for programs: found, loaded, and nothing beside them opened."""

import json
import math
import os
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from codegym import CallTest, SandboxError, Task, Verdict
from codegym.judge.codec import MAX_NODES, CodecError, TooLargeError, decode, encode
from codegym.judge.packages import PackageError, load, locate
from codegym.judge.pool import LocalJudge

ROOT = Path(__file__).parents[3]


def task(expected, *args):
    return Task(task_id="t", prompt="", entry_point="f", tests=(CallTest(args=args, expected=expected),))


def body(code, imports="import numpy as np"):
    lines = "\n".join("    " + line for line in code.splitlines())
    return f"{imports}\ndef f(x=None):\n{lines}\n"


@pytest.fixture(scope="module", params=[1, 2])
def numpy_judge(request):
    with LocalJudge(workers=1, imports=("numpy",), max_tier=request.param, cache=False) as judge:
        judge.judge([(task(1), "def f(): return 1")])
        if judge.tier < request.param:
            pytest.skip(f"this machine offers tier {judge.tier} only")
        yield judge


PROGRAMS = {
    "array": ("return np.arange(3)", [0, 1, 2]),
    "matrix": ("return np.eye(2, dtype=int)", [[1, 0], [0, 1]]),
    "integer": ("return np.int64(2) ** 40", 2**40),
    "truth": ("return np.any([0, 1])", True),
    "single precision": ("return [np.float32(0.5), np.float64(0.25)]", [0.5, 0.25]),
    "complex": ("return np.complex64(1j)", 1j),
    "text": ("return np.array(['a', 'bc'])", ["a", "bc"]),
    "key and member": ("return {np.int8(1): {np.int8(2)}}", {1: {2}}),
    "not a number": ("return np.array([np.nan, np.inf])", [math.nan, math.inf]),
    "record": ("return np.array([(1, 2.5)], dtype='i4,f8')", [(1, 2.5)]),
    "empty": ("return np.zeros((2, 0))", [[], []]),
    "algebra": ("return round(float(np.linalg.det(np.diag([2.0, 3.0]))), 6)", 6.0),
    "product of blocks": ("return float((np.ones((200, 200)) @ np.ones((200, 200))).sum())", 200.0**3),
    "late parts": ("import numpy.fft, numpy.polynomial, numpy.ma, numpy.testing\nreturn 1", 1),
    "same seed": ("return np.random.randint(99)", np.random.RandomState(0).randint(99)),
    "argument": ("return np.sort(x)", [1, 2, 3]),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_use_numpy_and_its_values_count_as_plain_ones(numpy_judge, name):
    code, expected = PROGRAMS[name]
    tests = task(expected, [3, 1, 2]) if name == "argument" else task(expected)
    judgement = numpy_judge.judge([(tests, body(code))])[0]
    assert judgement.passed, judgement


@pytest.mark.parametrize(
    ("code", "expected", "verdict"),
    [
        ("return np.arange(3)", [0, 1, 3], Verdict.WRONG_ANSWER),
        ("return np.arange(3.0)", [0, 1, 2], Verdict.WRONG_ANSWER),
        ("return np.int64(1)", True, Verdict.WRONG_ANSWER),
        ("return np.longdouble(1)", 1.0, Verdict.WRONG_ANSWER),
        ("return np.datetime64('2024-01-01')", "2024-01-01", Verdict.WRONG_ANSWER),
        ("return np.array([object()])", [1], Verdict.WRONG_ANSWER),
        ("return np.zeros(10**7)", [0.0], Verdict.OUTPUT_LIMIT),
        ("return len(np.zeros(10**11))", 1, Verdict.MEMORY_LIMIT),
        (
            "class Liar(np.ndarray):\n    def tolist(self): return Liar\n    __eq__ = lambda *_: True\n"
            "return np.arange(2).view(Liar)",
            [0, 1],
            Verdict.WRONG_ANSWER,
        ),
    ],
)
def test_other_values_are_no_false_passes(numpy_judge, code, expected, verdict):
    assert numpy_judge.judge([(task(expected), body(code))])[0].verdict is verdict


def test_an_array_is_too_large_before_it_becomes_a_list():
    class Array(np.ndarray):
        def tolist(self):
            raise AssertionError("made a list of it")

    with pytest.raises(TooLargeError, match=f"an array of {MAX_NODES + 1} items, more than {MAX_NODES}"):
        encode(np.zeros(MAX_NODES + 1, dtype=np.int8).view(Array))


def test_a_program_has_the_memory_limit_on_top_of_what_numpy_reserves():
    with LocalJudge(workers=1, imports=("numpy",), memory_limit_mb=96, cache=False) as judge:
        small = body("return float(np.ones(8 * 2**20).sum())")
        large = body("return float(np.ones(16 * 2**20).sum())")
        assert judge.judge([(task(float(8 * 2**20)), small)])[0].passed
        assert judge.judge([(task(float(16 * 2**20)), large)])[0].verdict is Verdict.MEMORY_LIMIT


def test_without_the_option_programs_have_the_standard_library_only():
    with LocalJudge(workers=1) as judge:
        judgement = judge.judge([(task(1), body("return 1"))])[0]
    assert (judgement.verdict, judgement.error_line) == (Verdict.RUNTIME_ERROR, 1)
    assert "ModuleNotFoundError: No module named 'numpy'" in judgement.message


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A folder of packages: one that is wanted, one that it needs, one with secrets, some broken ones."""
    folder = tmp_path / "packages"
    files = {
        "wanted/__init__.py": "import needed, json\nTEN = needed.TEN\n",
        "wanted/late.py": "ELEVEN = 11\n",
        "wanted/table.txt": "12",
        "needed.py": "TEN = 10\n",
        "secret.py": "ANSWER = 42\n",
        "secrets_/hidden.txt": "42",
        "broken.py": "raise RuntimeError('no licence')\n",
        "needy.py": "import not_there\n",
        "busy.py": "import threading as t\nt.Thread(target=t.Event().wait, daemon=True).start()\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(folder)
    return folder


ATTEMPT = """
def attempt(action):
    try:
        action()
    except Exception as error:
        return type(error).__name__
"""


@pytest.mark.parametrize("tier", [1, 2])
def test_a_package_brings_its_files_and_what_it_imports_and_nothing_beside_it(installed, tier):
    answers = [
        ("wanted.TEN", 10),
        ("needed.TEN", 10),
        ("importlib.import_module('wanted.late').ELEVEN", 11),
        ("int(open(os.path.join(os.path.dirname(wanted.__file__), 'table.txt')).read())", 12),
        ("attempt(lambda: importlib.import_module('secret'))", "ModuleNotFoundError"),
        (f"attempt(lambda: open({str(installed / 'secret.py')!r}))", "PermissionError"),
        (f"attempt(lambda: open({str(installed / 'secrets_/hidden.txt')!r}))", "PermissionError"),
        (f"attempt(lambda: os.listdir({str(installed)!r}))", "PermissionError"),
        (f"attempt(lambda: open({str(installed / 'wanted/late.py')!r}, 'w'))", "PermissionError"),
        ("[place for place in sys.path if 'packages' in place]", []),
    ]
    head = "import importlib, needed, os, sys, wanted\n" + ATTEMPT
    with LocalJudge(workers=1, imports=("wanted",), max_tier=tier) as judge:
        judgements = judge.judge([(task(value), f"{head}def f(): return {code}") for code, value in answers])
        assert [judgement for judgement in judgements if not judgement.passed] == []
    # The packages lie below /tmp, of which programs would have a private one; that must not cost the tier.
    with LocalJudge(workers=1, max_tier=tier) as bare:
        bare.judge([(task(1), "def f(): return 1")])
    assert judge.tier == bare.tier


def test_scratch_folders_are_private_wherever_they_are(installed):
    program = "import os\ndef f():\n    open('mark', 'w').close()\n    return sorted(os.listdir())"
    with LocalJudge(workers=1, imports=("wanted",), cache=False) as judge:
        assert all(judgement.passed for judgement in judge.judge([(task(["mark"]), program)] * 3))


@pytest.mark.parametrize(
    ("imports", "message"),
    [
        (("no_such_package",), "has no module named 'no_such_package'"),
        (("wanted", "nor_this"), "has no module named 'nor_this'"),
        ("wanted", "a sequence of module names, got the text 'wanted'"),
        (("../wanted",), r"module names, got '\.\./wanted'"),
        (("",), "module names, got ''"),
    ],
)
def test_a_package_that_is_not_installed_is_an_error_at_once(installed, imports, message):
    with pytest.raises(ValueError, match=message):
        LocalJudge(imports=imports)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "cannot import 'broken': RuntimeError: no licence"),
        ("needy", "cannot import 'needy': ModuleNotFoundError: No module named 'not_there'"),
        ("busy", "'busy' starts 1 threads when it is imported"),
        ("wanted.missing", "cannot import 'wanted.missing': ModuleNotFoundError"),
    ],
)
def test_a_package_that_cannot_be_loaded_is_the_judge_s_error_and_names_it(installed, name, message):
    with (
        LocalJudge(workers=1, imports=(name,)) as judge,
        pytest.raises(SandboxError, match=re.escape(message)),
    ):
        judge.judge([(task(1), "def f(): return 1")])


def test_packages_are_found_where_this_interpreter_finds_them(installed):
    assert locate(("wanted", "needed", "wanted.late")) == (str(installed),)
    assert locate(("numpy",)) == (str(Path(np.__file__).parents[1]),)
    assert locate(()) == ()
    # Already there, built in or frozen.
    assert locate(("sys", "math"))[:1] in ((), (str(Path(os.__file__).parent / "lib-dynload"),))


LOADED = """
import json, sys, types
for name, folder in (("codegym", "codegym"), ("codegym.judge", "codegym/judge")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [f"{sys.argv[1]}/{folder}"]
from codegym.judge.packages import load
path = list(sys.path)
places = [str(place) for place in load(json.loads(sys.argv[2]), json.loads(sys.argv[3]))]
print(json.dumps([places, sys.path == path]))
"""


def test_what_becomes_readable_are_the_packages_that_were_loaded(installed):
    site = str(Path(np.__file__).parents[1])
    arguments = [str(ROOT), json.dumps(["wanted", "json"]), json.dumps([str(installed)])]
    output = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments], capture_output=True, text=True, check=True
    )
    places, path_restored = json.loads(output.stdout)
    assert places == [f"{installed}/needed.py", f"{installed}/wanted", f"{installed}/wanted.libs"]
    assert path_restored
    assert site not in places


def test_loading_names_what_fails(installed):
    with pytest.raises(PackageError, match="cannot import 'broken': RuntimeError: no licence"):
        load(["broken"], [])


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.arange(6).reshape(2, 3), [[0, 1, 2], [3, 4, 5]]),
        (np.array(7), 7),
        (np.float32(0.5), 0.5),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.str_("é\ud800"), "é\ud800"),
        (np.bytes_(b"\0\xff"), b"\0\xff"),
        ([np.int64(1), (np.bool_(False),)], [1, (False,)]),
        (np.array([1, "a", None, [2]], dtype=object), [1, "a", None, [2]]),
        (np.ma.array([1, 2], mask=[False, True]), [1, None]),
    ],
)
def test_numpy_values_are_encoded_as_plain_ones(value, plain):
    decoded = decode(encode(value))
    assert decoded == plain
    assert repr(decoded) == repr(plain)


@pytest.mark.parametrize(
    "value", [np.longdouble(1), np.array(Fraction(1, 2), dtype=object), np.datetime64("2024-01-01")]
)
def test_numpy_values_without_a_plain_twin_are_refused(value):
    with pytest.raises(CodecError, match="not plain data"):
        encode(value)


def test_an_array_beyond_the_bounds_is_too_large():
    with pytest.raises(TooLargeError):
        encode(np.zeros(3_000_000, dtype=np.int8))
