"""Tier 3 on a tree of files that behaves like the kernel's, and on the real one as far as it allows."""

import errno
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from codegym import CallTest, SandboxError, Task, Verdict
from codegym.judge import cgroup
from codegym.judge.cgroup import Group, OwnedGroup, make_group
from codegym.judge.pool import LocalJudge

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="cgroups are Linux")

BOTH = "memory pids"
MIB = 2**20


def refuse(code):
    raise OSError(code, os.strerror(code))


class Tree:
    """A cgroup v2 hierarchy: control files appear and go with their folders, and writing has effects."""

    def __init__(self, folder, controllers=f"cpu {BOTH}"):
        self.proc, self.top = folder / "proc", folder / "sys fs" / "cgroup"
        self.proc.mkdir()
        self.top.mkdir(parents=True)
        self.files(self.top, controllers)
        self.forbidden = set()
        self.busy = 0
        self.writes = []

    def files(self, folder, controllers):
        content = {"controllers": controllers, "subtree_control": "", "procs": "", "kill": ""}
        for name, text in content.items():
            (folder / f"cgroup.{name}").write_text(text)
        if "memory" in controllers and folder != self.top:
            for name in ("max", "oom.group", "swap.max"):
                (folder / f"memory.{name}").write_text("max")
            (folder / "memory.events").write_text(
                "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n"
            )
        if "pids" in controllers and folder != self.top:
            (folder / "pids.max").write_text("max")

    def group(self, path, *, hands_down="", processes=""):
        """Make a group as somebody else would, on the way from the top."""
        folder = self.top
        for part in Path(path).parts:
            (folder / part).mkdir(exist_ok=True)
            if not (folder / part / "cgroup.procs").exists():
                self.files(folder / part, (folder / "cgroup.subtree_control").read_text())
            folder = folder / part
        (folder / "cgroup.subtree_control").write_text(hands_down)
        (folder / "cgroup.procs").write_text(processes)
        return folder

    def stand_in(self, path, root="/"):
        """Say that this process is in a group."""
        target = str(self.top).replace(" ", "\\040")
        (self.proc / "cgroup").write_text(f"4:memory:/elsewhere\n0::{path}\n")
        (self.proc / "mountinfo").write_text(
            "23 1 0:22 / /proc rw,relatime - proc proc rw\n"
            f"35 31 0:32 / {target}/memory rw,relatime shared:7 - cgroup cgroup rw,memory\n"
            f"41 31 0:38 {root} {target} rw,nosuid shared:9 master:2 - cgroup2 cgroup2 rw\n"
        )

    def mkdir(self, path, mode=0o777):
        place = Path(path).parent
        if place in self.forbidden:
            refuse(errno.EACCES)
        Path(path).mkdir(mode)
        self.files(Path(path), (place / "cgroup.subtree_control").read_text())

    def rmdir(self, path):
        if not os.path.exists(path):
            refuse(errno.ENOENT)
        if self.busy:
            self.busy -= 1
            refuse(errno.EBUSY)
        shutil.rmtree(path)

    def write(self, path, text):
        if not path.exists():
            refuse(errno.ENOENT)
        if path.parent in self.forbidden:
            refuse(errno.EACCES)
        if path.name == "cgroup.subtree_control":
            if (path.parent / "cgroup.procs").read_text():
                refuse(errno.EBUSY)
            text = text.replace("+", "")
        self.writes.append((path.name, text))
        path.write_text(text)

    def __getattr__(self, name):
        return getattr(os, name)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A tree that stands in for the operating system, as far as `cgroup` sees it."""
    made = Tree(tmp_path)
    monkeypatch.setattr(cgroup, "os", made)
    monkeypatch.setattr(cgroup, "_write", made.write)
    return made


def delegated(tree):
    """A user session: this process in a leaf of its own, below a group that hands the controllers down."""
    (tree.top / "cgroup.subtree_control").write_text(BOTH)
    tree.forbidden = {tree.top, tree.group("user", hands_down=BOTH)}
    place = tree.group("user/session", hands_down=BOTH)
    tree.group("user/session/shell", processes="17\n")
    tree.stand_in("/user/session/shell")
    return place


def test_the_group_is_made_beside_the_own_one_where_controllers_are_handed_down(tree):
    place = delegated(tree)
    group = make_group(tree.proc)
    assert group.path.parent == place
    assert re.fullmatch(r"codegym-[0-9a-f]{12}", group.path.name)
    assert group.path.stat().st_mode & 0o777 == 0o700


def test_two_workers_have_two_groups(tree):
    delegated(tree)
    groups = [make_group(tree.proc) for _ in range(2)]
    assert groups[0].path != groups[1].path
    assert all(group.path.exists() for group in groups)


def test_a_group_without_processes_is_made_to_hand_its_controllers_down(tree):
    place = delegated(tree)
    (place / "cgroup.subtree_control").write_text("cpu")
    assert make_group(tree.proc).path.parent == place
    assert (place / "cgroup.subtree_control").read_text() == BOTH


def test_the_nearest_place_wins_and_the_top_is_the_last(tree):
    (tree.top / "cgroup.subtree_control").write_text(BOTH)
    tree.group("a", hands_down=BOTH)
    tree.group("a/b", hands_down=BOTH)
    tree.stand_in("/a/b")
    assert make_group(tree.proc).path.parent == tree.top / "a/b"
    for closed, open_one in (("a/b", "a"), ("a", "")):
        tree.forbidden.add(tree.top / closed)
        assert make_group(tree.proc).path.parent == tree.top / open_one


def test_a_container_whose_mount_shows_only_its_own_part(tree):
    """The group's path is told from the root of the hierarchy, the mount begins in the middle of it."""
    (tree.top / "cgroup.subtree_control").write_text(BOTH)
    tree.group("inner", hands_down=BOTH)
    tree.stand_in("/docker/abc/inner", root="/docker/abc")
    assert make_group(tree.proc).path.parent == tree.top / "inner"


@pytest.mark.parametrize(
    ("arrange", "reason"),
    [
        (lambda tree: tree.stand_in("/other", root="/docker/abc"), "group /other lies outside .*/docker/abc"),
        (lambda tree: tree.stand_in("/../..", root="/docker"), "lies outside"),
        (lambda tree: (tree.proc / "mountinfo").write_text("9 1 0:2 / /x rw - proc x rw\n"), "no cgroup v2"),
        (lambda tree: (tree.proc / "cgroup").write_text("4:memory:/x\n"), "no cgroup v2 hierarchy is"),
        (lambda tree: (tree.proc / "cgroup").unlink(), "No such file"),
        (lambda tree: tree.stand_in("/gone"), "/gone: No such file or directory"),
        (lambda tree: tree.forbidden.update(tree.top.rglob("*")), "/session: Permission denied; "),
        (lambda tree: (tree.top / "user/session/cgroup.procs").write_text("9"), "session/shell: .*busy"),
    ],
)  # fmt: skip
def test_a_refusal_says_why(tree, arrange, reason):
    (delegated(tree) / "cgroup.subtree_control").write_text("")
    arrange(tree)
    with pytest.raises(OSError, match=reason):
        make_group(tree.proc)


def test_a_hierarchy_without_the_controllers_says_which_it_has(tree):
    for folder in (tree.top, tree.group("user")):
        (folder / "cgroup.controllers").write_text("hugetlb")
    tree.stand_in("/user")
    with pytest.raises(OSError, match=r"user: has the controllers hugetlb, needs memory and pids; .*hugetlb"):
        make_group(tree.proc)
    (tree.top / "cgroup.controllers").write_text("")
    with pytest.raises(OSError, match=r"controllers \(none\)"):
        make_group(tree.proc)


@pytest.mark.parametrize(("threads", "tasks"), [(False, "1"), (True, "256")])
def test_the_limits_are_sums_and_all_or_nothing(tree, threads, tasks):
    delegated(tree)
    group = make_group(tree.proc)
    group.limit(memory_bytes=100 * MIB, threads=threads)
    files = {name: (group.path / name).read_text() for name in ("memory.max", "pids.max", "memory.oom.group")}
    assert files == {"memory.max": str(132 * MIB), "pids.max": tasks, "memory.oom.group": "1"}
    assert (group.path / "memory.swap.max").read_text() == "0"


def test_a_kernel_that_does_not_account_for_swap_is_fine_but_one_without_limits_is_not(tree):
    delegated(tree)
    group = make_group(tree.proc)
    (group.path / "memory.swap.max").unlink()
    group.limit(memory_bytes=MIB, threads=False)
    (group.path / "memory.max").unlink()
    with pytest.raises(FileNotFoundError):
        group.limit(memory_bytes=MIB, threads=False)


def test_each_kill_for_memory_is_told_once(tree):
    delegated(tree)
    group = make_group(tree.proc)
    events = group.path / "memory.events"
    events.write_text("low 0\noom 9\noom_kill 3\n")
    group.limit(memory_bytes=MIB, threads=False)
    answers = [group.out_of_memory()]
    for kills in (4, 4, 6):
        events.write_text(f"low 0\noom 9\noom_kill {kills}\noom_group_kill 1\n")
        answers.append(group.out_of_memory())
    assert answers == [False, True, False, True]


def test_removing_kills_what_is_left_and_waits_for_it(tree):
    delegated(tree)
    group = make_group(tree.proc)
    tree.busy = 3
    group.remove()
    assert ("cgroup.kill", "1") in tree.writes
    assert tree.busy == 0
    assert not group.path.exists()


def test_removing_does_not_wait_forever(tree, monkeypatch):
    monkeypatch.setattr(cgroup, "_REMOVE_S", 0.05)
    delegated(tree)
    group = make_group(tree.proc)
    tree.busy = 10**6
    started = time.monotonic()
    with pytest.raises(OSError, match="busy"):
        group.remove()
    assert time.monotonic() - started < 2


def test_owner_and_grader_may_both_remove_a_group_in_any_order(tree):
    delegated(tree)
    for first in (0, 1):
        owned = make_group(tree.proc)
        sides = [owned, Group(owned.path)]
        sides[first].remove()
        sides[1 - first].remove()
        assert not owned.path.exists()


def test_a_group_whose_owner_was_killed_goes_with_the_next_one(tree):
    place = delegated(tree)
    living, dead, copied = (make_group(tree.proc) for _ in range(3))
    # What the end of a process does to its locks.
    dead.abandon()
    other = os.dup(copied._lock)
    copied.abandon()
    tree.group("user/session/codegymnasium")
    new = make_group(tree.proc)
    left = {path.name for path in place.glob("codegym*")}
    assert left == {living.path.name, copied.path.name, new.path.name, "codegymnasium"}
    os.close(other)


def test_a_group_that_does_not_go_is_no_obstacle(tree, monkeypatch):
    monkeypatch.setattr(cgroup, "_REMOVE_S", 0.01)
    delegated(tree)
    dead = make_group(tree.proc)
    dead.abandon()
    tree.busy = 2**60
    assert make_group(tree.proc).path.exists()
    assert dead.path.exists()


def test_a_group_swept_up_before_it_was_locked_is_made_again(tree, monkeypatch):
    delegated(tree)
    mkdir = tree.mkdir

    def steal(path, mode):
        monkeypatch.setattr(tree, "mkdir", mkdir)
        mkdir(path, mode)
        shutil.rmtree(path)

    monkeypatch.setattr(tree, "mkdir", steal)
    assert make_group(tree.proc).path.exists()


def test_no_descriptors_are_left(tree):
    delegated(tree)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        make_group(tree.proc).remove()
        make_group(tree.proc).abandon()
    assert len(os.listdir("/proc/self/fd")) == before


def test_this_machine_offers_tier_3_or_says_why_not():
    with LocalJudge(workers=1) as judge:
        judgement = judge.judge([(TASK, "def f(): return 1")])[0]
        missing = judge._crew.idle[0].missing
    assert judgement.passed
    if judgement.tier == 3:
        LocalJudge(workers=1, min_tier=3).close()
        return
    assert re.match(rf"tier {judgement.tier + 1} (needs|has) \S", missing)
    with pytest.raises(SandboxError, match=re.escape(f"tier 3 wanted, {judgement.tier} found: {missing}")):
        LocalJudge(workers=1, min_tier=3)


TASK = Task(task_id="t", prompt="", entry_point="f", tests=(CallTest(args=(), expected=1),))
# Each is small by itself; the address space is not what it runs out of.
HOARD = """
import os, socket
def f():
    for number in range(30): open(f"x{number}", "wb").write(b"x" * 2**20)
    kept = bytearray(b"y") * (BYTES)
    pairs = []
    while True:
        pairs.append(socket.socketpair())
        pairs[-1][0].setblocking(False)
        try:
            while True: pairs[-1][0].send(b"z" * 65536)
        except OSError: pass
"""


@pytest.fixture
def judge():
    with LocalJudge(workers=1, memory_limit_mb=64, time_limit_s=10, cache=False) as made:
        made.judge([(TASK, "def f(): return 1")])
        if made.tier < 3:
            pytest.skip(f"tier {made.tier} only: {made._crew.idle[0].missing}")
        yield made


def test_tier_3_counts_everything_and_the_next_verdict_is_right(judge):
    program = HOARD.replace("BYTES", str(62 * MIB))
    bad, good = judge.judge([(TASK, program), (TASK, "def f(): return 1")])
    assert (bad.verdict, bad.tier) == (Verdict.MEMORY_LIMIT, 3)
    assert "killed for memory" in bad.message
    assert good.passed


def test_tier_3_leaves_no_group_behind(judge):
    path = judge._crew.idle[0]._group.path
    assert path.exists()
    judge.close()
    assert not path.exists()


def real_place():
    """Where this process may make groups, with controllers or without."""
    try:
        places = cgroup._places(Path("/proc/self"))
    except OSError:
        return None
    return next((place for place in places if os.access(place, os.W_OK)), None)


BORN = """
import os, sys, time, types
# Without the package's own imports: they start threads, which a user namespace does not take.
for name, folder in (("codegym", "codegym"), ("codegym.judge", "codegym/judge")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [f"{sys.argv[1]}/{folder}"]
from codegym.judge import namespaces
namespaces.enter()
child = namespaces.fork(os.open(sys.argv[2], os.O_PATH))
if child == 0:
    time.sleep(60)
print(child, flush=True)
sys.stdin.read()
"""


def test_children_are_born_into_a_real_group_and_die_with_it():
    place = real_place()
    if place is None:
        pytest.skip("no cgroup v2 hierarchy in which this process may make a group")
    group = OwnedGroup(place / f"codegym-test{os.getpid()}")
    try:
        parent = subprocess.Popen(
            [sys.executable, "-c", BORN, str(Path(__file__).parents[3]), str(group.path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        child = parent.stdout.readline().strip()
        members = (group.path / "cgroup.procs").read_text().split()
        started = time.monotonic()
    finally:
        group.remove()
    seconds = time.monotonic() - started
    _, complaint = parent.communicate("")
    if "unshare: Operation not permitted" in complaint:
        pytest.skip("no user namespaces")
    assert members == [child]
    assert not group.path.exists()
    assert seconds < 1
