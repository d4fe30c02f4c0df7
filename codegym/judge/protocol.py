"""What the processes of a worker agree on."""

import os
import sys
from pathlib import Path

READY = b"R"
"""First byte on a program's channel: the child has confined itself, from now on its failures are its own."""

NEXT, HUNG_UP = b"N", b"H"
"""Commands to the zygote: end the child and fork the next one on the channel that comes along; or let the
child, which hung up, finish ending, and report how it ended."""

PACKAGE = Path(__file__).parent
"""The only folder that a worker's processes need beside the standard library."""

FIXED_ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "LANG": "C.UTF-8"} | {
    f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMEXPR")
}
"""The same hashes and texts everywhere; numerical libraries without threads, which no fork survives."""

# Stands in for the two packages without running their __init__, which imports numpy and gymnasium.
_BOOT = """
import sys, types
for name, folder in {packages!r}:
    package = types.ModuleType(name)
    package.__path__ = [folder]
    sys.modules[name] = package
from {module} import main
main()
"""


def python_command(
    module: str, *arguments: str, python: str = sys.executable, folder: str = str(PACKAGE.parent)
) -> list[str]:
    """Return the command line that runs a module's `main` in a clean, fast-starting Python.

    Args:
        module: The module's full name.
        arguments: What it finds in `sys.argv`.
        python: The interpreter.
        folder: Where that interpreter finds the folder `judge`.
    """
    packages = [("codegym", folder), ("codegym.judge", f"{folder}/judge")]
    boot = _BOOT.format(packages=packages, module=module)
    # Like -I, except that the hash seed is taken from the environment, which `environment` makes clean.
    return [python, "-P", "-s", "-S", "-B", "-W", "ignore", "-c", boot, *arguments]


def environment() -> dict[str, str]:
    """Return the whole environment of a worker's processes: fixed hashes, UTF-8, no secrets."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return kept | FIXED_ENVIRONMENT
