"""Packages beside the standard library for programs: found by the trainer, loaded once by the zygote.

Programs find them loaded, and may read their files for what they load late. The folder that they lie in stays
closed: what else is installed there is no program's business, data sets with hidden tests least of all.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path


class PackageError(Exception):
    """A package cannot be loaded ahead of programs."""


def locate(names: Sequence[str]) -> tuple[str, ...]:
    """Return the folders in which this interpreter finds the packages.

    Raises:
        ValueError: If a name is no module's name, or there is no such module.
    """
    if isinstance(names, str):
        raise ValueError(f"imports must be a sequence of module names, got the text {names!r}")
    folders: dict[str, None] = {}
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"imports must be module names, got {name!r}")
        spec = importlib.util.find_spec(name.partition(".")[0])
        if spec is None:
            raise ValueError(f"imports: {sys.executable} has no module named {name!r}")
        if spec.has_location or spec.submodule_search_locations:
            for place in spec.submodule_search_locations or [str(spec.origin)]:
                folders[str(Path(place).absolute().parent)] = None
    return tuple(folders)


def load(names: Iterable[str], folders: Iterable[str]) -> list[Path]:
    """Import packages for good; return their files and folders, those of what they import included.

    Raises:
        PackageError: If one cannot be imported, or leaves threads running, which no fork survives.
    """
    before = set(sys.modules)
    path = list(sys.path)
    # Last, so that nothing installed can stand in for the standard library.
    sys.path += folders
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise PackageError(f"cannot import {name!r}: {type(error).__name__}: {error}") from error
        if sys.platform == "linux" and (threads := len(os.listdir("/proc/self/task"))) > 1:
            raise PackageError(f"{name!r} starts {threads - 1} threads when it is imported")
    if "numpy" in sys.modules:
        # Children inherit the state: the same numbers for every program, as from `random`.
        importlib.import_module("numpy.random").seed(0)
    sys.path[:] = path
    added = {name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names
    return [place for name in sorted(added) for place in _places(sys.modules[name])]


def _places(module: object) -> Iterable[Path]:
    """Return where a top-level module's files lie; wheels keep their shared libraries beside the package."""
    folders = getattr(module, "__path__", None)
    if folders is None:
        file = getattr(module, "__file__", None)
        return [Path(file)] if file else []
    return [Path(place) for folder in folders for place in (folder, f"{folder}.libs")]
