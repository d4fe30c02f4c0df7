"""The whole attack corpus once more, as a user without any privilege who can never gain one."""

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# Nobody else's number, containers' included, so that whatever is left was left by us.
NOBODY = 61_000 + os.getpid() % 4_000
FOLDERS = (sys.base_prefix, sys.prefix, str(ROOT))
# Folders behind a closed one, as an interpreter in root's home, are shown in place by a mount of our own.
LAUNCH = """
import os, sys, types
root, uid, home, closed, *command = sys.argv[1:]
for name, folder in (("codegym", f"{root}/codegym"), ("codegym.judge", f"{root}/codegym/judge")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]
from codegym.judge import linux
pairs = [pair.split("|") for pair in closed.split(":") if pair]
if pairs:
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("none", "/", "none", linux.MS_REC | linux.MS_PRIVATE)
    held = [(folder, os.open(folder, os.O_PATH)) for folder, _ in pairs]
    for top in {top for _, top in pairs}:
        linux.mount("none", top, "tmpfs", 0, "mode=755")
    for folder, descriptor in held:
        os.makedirs(folder, exist_ok=True)
        linux.mount(f"/proc/self/fd/{descriptor}", folder, "none", 0x1000 | linux.MS_REC)
        os.close(descriptor)
os.setgroups([])
os.setresgid(*[int(uid)] * 3)
os.setresuid(*[int(uid)] * 3)
linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
os.chdir(root)
os.execve(command[0], command, {"PATH": "/usr/bin:/bin", "HOME": home, "PYTHONDONTWRITEBYTECODE": "1"})
"""


def closed_parent(folder):
    """The first folder on the way that lets nobody else through, if there is one."""
    way = [*reversed(Path(folder).parents), Path(folder)]
    return next((place for place in way if not place.stat().st_mode & stat.S_IXOTH), None)


def run_as_nobody(home, *arguments):
    """Run pytest as a user without privileges; return its report."""
    closed = [(folder, closed_parent(folder)) for folder in FOLDERS]
    pairs = ":".join(f"{folder}|{parent}" for folder, parent in closed if parent)
    pytest_command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    command = [sys.executable, "-c", LAUNCH, str(ROOT), str(NOBODY), str(home), pairs, *pytest_command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, cwd="/")
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def home():
    """A home for nobody, outside of pytest's own folders, which are closed."""
    folder = Path(tempfile.mkdtemp(prefix="codegym-home-"))
    os.chown(folder, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder)


def left_by_nobody():
    """Processes, and files in shared folders."""
    places = [*Path("/proc").glob("[0-9]*"), *Path("/dev/shm").iterdir(), *Path("/var/tmp").iterdir()]
    places += [place for place in Path("/tmp").iterdir() if not place.name.startswith("codegym-home-")]
    return [str(place) for place in places if owner(place) == NOBODY and not has_ended(place)]


def has_ended(place):
    """Whether a place is a process that has ended: its new parent may take its time to notice."""
    try:
        return place.parent == Path("/proc") and "\nState:\tZ" in (place / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def owner(place):
    try:
        return place.lstat().st_uid
    except FileNotFoundError:
        return None


needs_root = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0,
    reason="only root can become somebody else; others are already",
)


@needs_root
def test_nobody_has_no_privileges(home):
    script = home / "test_identity.py"
    script.write_text(
        "import os, pathlib\n"
        "def test_identity():\n"
        "    status = pathlib.Path('/proc/self/status').read_text()\n"
        f"    assert os.getresuid() == ({NOBODY},) * 3 and os.getgroups() == []\n"
        "    assert 'CapEff:\\t0000000000000000' in status and 'NoNewPrivs:\\t1' in status\n"
        f"    assert os.environ['HOME'] == {str(home)!r}\n"
    )
    code, report = run_as_nobody(home, str(script), f"--rootdir={home}", "--import-mode=importlib")
    assert code == 0, report
    assert "1 passed" in report


@pytest.mark.slow
@pytest.mark.timeout(1600)
@needs_root
def test_the_corpus_as_nobody(home):
    corpus = Path(__file__).with_name("test_attacks.py")
    code, report = run_as_nobody(home, str(corpus), "-m", "slow or not slow", f"--basetemp={home}/tmp", "-rs")
    assert code == 0, report[-5000:]
    passed = int(re.search(r"(\d+) passed", report)[1])
    # A tier that this user has not is skipped by name; tier 1 needs no privilege at all.
    assert passed > 150
    assert "offers tier 0" not in report
    stop = time.monotonic() + 5
    while left_by_nobody() and time.monotonic() < stop:
        time.sleep(0.1)
    assert left_by_nobody() == []
    assert [path.name for path in home.iterdir() if path.name != "tmp"] == []
