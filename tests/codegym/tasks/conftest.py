# ruff: noqa: E501 - programs are easier to read on few lines
"""A few rows of every source, written for these tests in the published schemas."""

import base64
import copy
import gzip
import json
import pickle
import zlib
from pathlib import Path

import pytest

from codegym.judge.pool import LocalJudge


def packed(tests):
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


HUMANEVAL = [
    {
        "task_id": f"HumanEval/{number}",
        "prompt": f'def plus_{number}(x):\n    """ Add {number}. """\n',
        "entry_point": f"plus_{number}",
        "canonical_solution": f"    return x + {number}\n",
        "test": f"\n\nMETADATA = {{}}\n\n\ndef check(candidate):\n    assert candidate(1) == {number + 1}\n",
    }
    for number in range(6)
]

HUMANEVAL_PLUS = [
    {
        "task_id": "HumanEval/0",
        "prompt": 'def halves(xs):\n    """ Half of each. """\n',
        "contract": "    assert xs\n",
        "entry_point": "halves",
        "canonical_solution": "    return [x / 2 for x in xs]\n",
        "base_input": [[[1, 2]], [[]]],
        "plus_input": [[[3]], [[1e9, -7]], [[0.1]]],
        "atol": 0,
    },
    {
        "task_id": "HumanEval/32",
        "prompt": (
            "import math\n\n\ndef poly(xs, x):\n"
            "    return sum(coeff * math.pow(x, i) for i, coeff in enumerate(xs))\n\n\n"
            'def find_zero(xs):\n    """ A zero of the polynomial with two coefficients. """\n'
        ),
        "contract": "",
        "entry_point": "find_zero",
        "canonical_solution": "    return -xs[0] / xs[1]\n",
        "base_input": [[[1, 2]]],
        "plus_input": [[[3, -7]]],
        "atol": 0.0001,
    },
    {
        "task_id": "HumanEval/2",
        "prompt": 'def words(text):\n    """ The words, sorted. """\n',
        "contract": "",
        "entry_point": "words",
        "canonical_solution": "    return sorted(text.split())\n",
        "base_input": [["b a"], [""]],
        "plus_input": [['é \\n \'x\' """ \u2028']],
        "atol": 0,
    },
]

MBPP = [
    {
        "text": "Write a function to add two numbers.",
        "code": "import math\r\ndef helper(x):\r\n  return x\r\ndef add(a, b):\r\n  return helper(a + b)",
        "task_id": 3,
        "test_setup_code": "",
        "test_list": ["assert add(1, 2) == 3", "assert add(2, 2) == 4", "assert add(0, 0) == 0"],
        "challenge_test_list": ["assert add(-1, 1) == 0"],
    },
    {
        "text": 'Write a function to match \\d and """quotes""".',
        "code": "def shared(a, b):\n    return tuple(set(a) & set(b))",
        "task_id": 11,
        "test_setup_code": "limit = 3",
        "test_list": ["assert set(shared((1, 2), (2, limit))) == set((2,))"],
        "challenge_test_list": [],
    },
    {
        "source_file": "Benchmark Questions Verification V2.ipynb",
        "task_id": 511,
        "prompt": "Write a function to find the area of a circle.",
        "code": "import math\ndef area(r):\n    return math.pi * r * r",
        "test_imports": ["import math"],
        "test_list": [
            "assert math.isclose(area(10), 314.159, rel_tol=0.001)",
            "assert math.isclose(area(0), 0)",
        ],
    },
    {
        "text": "Write a function to negate.",
        "code": "def negate(x):\n    return -x",
        "task_id": 974,
        "test_setup_code": "",
        "test_list": ["assert negate(1) == -1"],
        "challenge_test_list": [],
    },
]

LIVECODEBENCH = [
    {
        "question_title": "Two numbers",
        "question_content": "Read two numbers, print sum and $\\frac{a}{b}$.",
        "platform": "atcoder",
        "question_id": "abc301_a",
        "contest_id": "abc301",
        "contest_date": "2023-05-13T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps([{"input": "1 2\n", "output": "3 0.5\n", "testtype": "stdin"}]),
        "private_test_cases": packed([{"input": "3 4\n", "output": "7 0.75", "testtype": "stdin"}]),
        "metadata": "{}",
    },
    {
        "question_title": "Pair",
        "question_content": "Return the pair with the sum.",
        "platform": "leetcode",
        "question_id": "3000",
        "contest_id": "weekly-380",
        "contest_date": "2024-01-14T00:00:00",
        "starter_code": "class Solution:\n    def pair(self, nums: List[int], total: int) -> List[int]:\n        ",
        "difficulty": "medium",
        "public_test_cases": json.dumps(
            [{"input": "[1, 2, 3]\n5", "output": "[2, 3]", "testtype": "functional"}]
        ),
        "private_test_cases": json.dumps(
            [{"input": "[4, 4]\n8", "output": "[4, 4]", "testtype": "functional"}]
        ),
        "metadata": json.dumps({"func_name": "pair"}),
    },
    {
        "question_title": "Bare",
        "question_content": "Return twice the text.",
        "platform": "leetcode",
        "question_id": "3001",
        "contest_id": "weekly-381",
        "contest_date": "2024-01-21",
        "starter_code": "def twice(text):\n    pass",
        "difficulty": "hard",
        "public_test_cases": "[]",
        "private_test_cases": packed([{"input": '"ab"', "output": '"abab"', "testtype": "functional"}]),
        "metadata": json.dumps({"func_name": "twice"}),
    },
]

APPS = [
    {
        "problem_id": 0,
        "question": "Read n, print its third.",
        "solutions": json.dumps(["print 1\n", "n = int(input())\r\nprint(n / 3)"]),
        "input_output": json.dumps({"inputs": ["3\n", ["9", ""]], "outputs": ["1.0\n", ["3.0"]]}),
        "difficulty": "introductory",
        "url": "https://codeforces.com/problemset/problem/1/A",
        "starter_code": "",
    },
    {
        "problem_id": 1,
        "question": "Sort the numbers.",
        "solutions": json.dumps(
            ["class Solution:\n    def ordered(self, a: List[int]):\n        return tuple(sorted(a))\n"]
        ),
        "input_output": json.dumps(
            {"fn_name": "ordered", "inputs": [[[3, 1]], [[2]]], "outputs": [[1, 3], [2]]}
        ),
        "difficulty": "interview",
        "url": "https://leetcode.com/problems/x",
        "starter_code": "class Solution:\n    def ordered(self, a: List[int]):\n        ",
    },
    {
        "problem_id": 2,
        "question": "Count the letters.",
        "solutions": json.dumps(["def count(d):\n    return {k: len(v) for k, v in d.items()}\n"]),
        "input_output": json.dumps(
            {"fn_name": "count", "inputs": [[{"1": "a", "-2": "bc"}]], "outputs": [[{"1": 1, "-2": 2}]]}
        ),
        "difficulty": "competition",
        "url": "https://www.codewars.com/kata/x",
        "starter_code": "def count(d):\n\t",
    },
]

TACO = [
    {
        "question": "Print the larger of two numbers.",
        "solutions": json.dumps(["print(max(map(int, input().split())))"]),
        "starter_code": "",
        "input_output": json.dumps({"inputs": ["1 2\n", "5 3\n"], "outputs": ["2\n", "5\n"]}),
        "difficulty": "EASY",
        "raw_tags": "['math']",
        "name": "Larger",
        "source": "codechef",
        "tags": "['Mathematics']",
        "skill_types": "['Greedy algorithms']",
        "url": "https://www.codechef.com/problems/X",
        "Expected Auxiliary Space": None,
        "time_limit": "2.0 seconds",
        "date": "2022-02-20",
        "picture_num": "0",
        "memory_limit": "256.0 megabytes",
        "Expected Time Complexity": None,
    },
    {
        "question": "Return the length.",
        "solutions": json.dumps(["class Solution:\n    def size(self, s):\n        return len(s)"]),
        "starter_code": "#User function Template for python3\n\nclass Solution:\n    def size(self, s):\n        # code here",
        "input_output": json.dumps({"fn_name": "size", "inputs": [["abc"], [""]], "outputs": [3, 0]}),
        "difficulty": "VERY_HARD",
        "source": "geeksforgeeks",
        "tags": "[]",
        "skill_types": None,
        "url": None,
    },
]

CODECONTESTS = [
    {
        "name": "1575_A. Another Sorting Problem",
        "description": "Say yes to a positive number; give its half.",
        "public_tests": {"input": ["2\n"], "output": ["YES 1.0\n"]},
        "private_tests": {"input": ["-3\n"], "output": ["NO -1.5\n"]},
        "generated_tests": {"input": ["10\n", "12345\n"], "output": ["YES 5\n", "YES 6172.5\n"]},
        "source": 2,
        "difficulty": 7,
        "solutions": {
            "language": [2, 1, 3],
            "solution": [
                "int main() {}",
                "print 1",
                "n = int(input())\nprint('yes' if n > 0 else 'no', n / 2)\n",
            ],
        },
        "incorrect_solutions": {"language": [3], "solution": ["print(1)"]},
        "cf_contest_id": 1575,
        "cf_index": "A",
        "cf_points": 0.0,
        "cf_rating": 1100,
        "cf_tags": ["sortings"],
        "is_description_translated": False,
        "untranslated_description": "",
        "time_limit": {"seconds": 2, "nanos": 0},
        "memory_limit_bytes": 256000000,
        "input_file": "",
        "output_file": "",
    },
    {
        "name": "p00001",
        "description": "Print what you read.",
        "public_tests": [{"input": "a b\n", "output": "a b\n"}],
        "source": "AIZU",
        "difficulty": "EASY",
        "solutions": [{"language": "PYTHON3", "solution": "print(input())"}],
    },
]

JSONL = [
    {
        "task_id": "mine/sort",
        "prompt": "def order(xs):\n",
        "entry_point": "order",
        "tests": [
            {"kind": "call", "args": [[3, 1]], "expected": [1, 3]},
            {
                "kind": "call",
                "args": [{"tuple": [2, 1]}],
                "expected": {"tuple": [1, 2]},
                "comparison": "equal",
            },
            {"kind": "assertion", "code": "assert candidate([2, 1]) == [1, 2]"},
        ],
        "split": "validation",
        "reference": "    return sorted(xs)\n",
        "metadata": {"difficulty": "easy"},
    },
    {
        "task_id": "mine/echo",
        "prompt": "Print the line you read.",
        "prompt_is_code": False,
        "tests": [{"kind": "stdio", "stdin": "a\n", "stdout": "a"}],
        "reference": "print(input())\n",
    },
]

ROWS = {
    "humaneval": HUMANEVAL,
    "humaneval_plus": HUMANEVAL_PLUS,
    "mbpp": MBPP,
    "livecodebench": LIVECODEBENCH,
    "apps": APPS,
    "taco": TACO,
    "codecontests": CODECONTESTS,
    "jsonl": JSONL,
}


@pytest.fixture
def rows_of():
    """The rows of a source, to be changed at will."""
    return lambda source: copy.deepcopy(ROWS[source])


@pytest.fixture
def write(tmp_path):
    """Writes rows as JSON Lines, gzipped if the name says so; text as it is."""

    def write(rows, name="rows.jsonl"):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        data = "".join(line + "\n" for line in lines).encode()
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write


@pytest.fixture(scope="session")
def judge():
    with LocalJudge(workers=1, time_limit_s=5.0) as judge:
        yield judge


@pytest.fixture
def verdicts(judge):
    """Judges programs of one task; returns verdicts as texts, or the results of each test."""
    return lambda task, *programs: [
        str(j.verdict) for j in judge.judge([(task, program) for program in programs])
    ]


@pytest.fixture
def pack():
    return packed


@pytest.fixture(scope="session")
def shared_data():
    """The folder with MBPP beside the checkout."""
    folder = Path(__file__).parents[4] / "shared" / "data"
    if not (folder / "mbpp.jsonl").is_file():
        pytest.skip(f"MBPP is not in {folder}")
    return folder
