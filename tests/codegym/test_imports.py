"""Which package may import which, what an import costs, and what is public."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import codegym

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {"codegym": set(), "prm": {"codegym"}, "agents": {"codegym", "prm"}}
MODULES = sorted(path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))
HEAVY = ("torch", "transformers", "stable_baselines3", "matplotlib")


def imported_roots(module: Path) -> set[str]:
    """Top-level packages that a module imports, inside functions too."""
    roots = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide their direction"
            roots.add((node.module or "").split(".")[0])
    return roots


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(ROOT)))
def test_imports_point_down(module):
    package = module.relative_to(ROOT).parts[0]
    forbidden = {*MAY_IMPORT, "benchmarks", "tests"} - MAY_IMPORT[package] - {package}
    assert not imported_roots(module) & forbidden


@pytest.mark.parametrize(
    "module", [m for m in MODULES if m.is_relative_to(ROOT / "codegym")], ids=lambda m: m.name
)
def test_codegym_never_imports_a_deep_learning_library(module):
    assert not imported_roots(module) & {*HEAVY, "tokenizers", "safetensors"}


def test_importing_codegym_is_light():
    program = (
        f"import codegym, codegym.testing, sys; print([name for name in {HEAVY} if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert result.stdout.strip() == "[]"


def test_all_is_sorted_complete_and_real():
    public = {
        name for name, value in vars(codegym).items() if not name.startswith("_") and not is_module(value)
    }
    assert set(codegym.__all__) == public
    assert len(codegym.__all__) == len(set(codegym.__all__))
    assert codegym.__all__ == sorted(codegym.__all__, key=isort_style)


def is_module(value):
    return type(value).__name__ == "module"


def isort_style(name):
    """Constants, then classes, then functions, as the linter sorts `__all__`."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def test_every_public_name_is_documented():
    for name in codegym.__all__:
        value = getattr(codegym, name)
        assert not callable(value) or isinstance(value, type(codegym.TestCase)) or value.__doc__, name
