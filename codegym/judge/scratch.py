"""Scratch folders outside of a private /tmp: where they are, and how to remove what programs leave there."""

import os
import tempfile

# In memory where possible: some disks need milliseconds to remove a folder, and programs make thousands.
_MEMORY = "/dev/shm"


def make_folder() -> str:
    """Make a folder for a worker, which only this user may enter."""
    return tempfile.mkdtemp(prefix="codegym-", dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None)


def remove_folder(folder: str) -> None:
    """Remove a folder that nobody else is using, however deep it is and whatever the modes in it.

    Walks along descriptors, because programs can nest deeper than any path can say or any stack can follow.
    """
    os.chmod(folder, 0o700)
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    trail: list[str] = []
    try:
        while True:
            inner = _remove_files(here)
            if inner is not None:
                os.chmod(inner, 0o700, dir_fd=here)
                here = _step(here, inner)
                trail.append(inner)
            elif trail:
                here = _step(here, "..")
                os.rmdir(trail.pop(), dir_fd=here)
            else:
                break
    finally:
        os.close(here)
    os.rmdir(folder)


def _step(here: int, name: str) -> int:
    """Exchange an open folder for one of its neighbours."""
    there = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
    os.close(here)
    return there


def _remove_files(here: int) -> str | None:
    """Remove files until a folder turns up; return its name, or None if there is none."""
    with os.scandir(here) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                return entry.name
            os.unlink(entry.name, dir_fd=here)
    return None
