"""Scratch folders outside of a private /tmp: where they are, and how to remove what programs leave there."""

import fcntl
import os
import tempfile
import time
from contextlib import suppress

# In memory where possible: some disks need milliseconds to remove a folder, and programs make thousands.
_MEMORY = "/dev/shm"
_PREFIX = "codegym-"
# Long enough for whoever made a folder to start the process that holds it.
_LEFT_BEHIND_S = 600.0


def make_folder() -> str:
    """Make a folder for a worker, closed to other users; remove those of workers that were killed."""
    place = _MEMORY if os.access(_MEMORY, os.W_OK) else tempfile.gettempdir()
    _sweep(place)
    return tempfile.mkdtemp(prefix=_PREFIX, dir=place)


def hold_folder(folder: str) -> None:
    """Keep a folder from being taken for one that was left behind, as long as this process lives."""
    fcntl.flock(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sweep(place: str) -> None:
    """Remove folders of this user that nobody holds."""
    before = time.time() - _LEFT_BEHIND_S
    with os.scandir(place) as entries:
        names = [entry.path for entry in entries if entry.name.startswith(_PREFIX)]
    for path in names:
        # Held, gone meanwhile, or of a user who would rather see something else removed.
        with suppress(OSError):
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                status = os.fstat(folder)
                if status.st_uid == os.geteuid() and status.st_mtime < before:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove_folder(path)
            finally:
                os.close(folder)


def remove_folder(folder: str) -> None:
    """Remove a folder that nobody else is using, however deep it is and whatever the modes in it.

    Walks along descriptors, because programs can nest deeper than any path can say or any stack can follow.
    """
    os.chmod(folder, 0o700)
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    trail: list[str] = []
    # Folders still to be entered, for each level; each is listed once, for a level may have many.
    waiting = [_remove_files(here)]
    try:
        while True:
            if waiting[-1]:
                inner = waiting[-1].pop()
                os.chmod(inner, 0o700, dir_fd=here)
                here = _step(here, inner)
                trail.append(inner)
                waiting.append(_remove_files(here))
            elif trail:
                waiting.pop()
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


def _remove_files(here: int) -> list[str]:
    """Remove the files of a folder; return the names of the folders in it."""
    with os.scandir(here) as entries:
        listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in listed:
        if not is_folder:
            os.unlink(name, dir_fd=here)
    return [name for name, is_folder in listed if is_folder]
