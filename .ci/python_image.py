"""Write a container image's file system with the running Python and nothing else, for machines offline.

    python .ci/python_image.py python.tar && docker import python.tar codegym-python

Every file lies where it lies here, so the interpreter finds its library as it always does.
"""

import io
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable
from pathlib import Path

# Large, and of no use to programs.
_LEFT_OUT = {
    "site-packages",
    "dist-packages",
    "test",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "lib2to3",
}


def main() -> None:
    """Write the archive that the first argument names."""
    interpreter = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}))
    files = [path for path in _files(library) if path.is_file()]
    binaries = [interpreter, *(path for path in files if path.suffix == ".so")]
    files += [interpreter, *_libraries(binaries)]
    with tarfile.open(sys.argv[1], "w", dereference=True) as archive:
        for folder in sorted({parent for path in files for parent in path.parents} | {Path("/tmp")}):
            _add_folder(archive, folder)
        for path in sorted(set(files)):
            archive.add(path, filter=_owned_by_root)
        for name in ("bin/python3", "usr/local/bin/python3"):
            if Path("/", name) != interpreter:
                link = tarfile.TarInfo(name)
                link.type, link.linkname = tarfile.SYMTYPE, str(interpreter)
                archive.addfile(link)


def _files(folder: Path) -> Iterable[Path]:
    for entry in folder.iterdir():
        if entry.name not in _LEFT_OUT and not entry.name.startswith("config-"):
            yield from [entry] if not entry.is_dir() else entry.rglob("*")


def _libraries(binaries: Iterable[Path]) -> set[Path]:
    """Return the shared libraries that the binaries load, and the loader."""
    listing = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False).stdout
    return {Path(path) for path in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", listing, re.MULTILINE)}


def _add_folder(archive: tarfile.TarFile, folder: Path) -> None:
    entry = tarfile.TarInfo(str(folder).lstrip("/") or ".")
    entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == Path("/tmp") else 0o755
    archive.addfile(entry, io.BytesIO())


def _owned_by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.mode |= 0o444
    return entry


if __name__ == "__main__":
    main()
