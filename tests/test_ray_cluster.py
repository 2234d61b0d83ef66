"""Starting Ray: one more try, a limit, one line in the end; and one start that is real."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

import trackmill.pipeline.ray_cluster as ray_cluster
from tests.runs import TIMEOUT_S, job_environment
from trackmill.pipeline.ray_cluster import PATIENCE, RayUnavailable, start_ray
from trackmill.schemas.errors import JobError

ROOT = Path(__file__).resolve().parent.parent


class FakeRay:
    """Stands in for `ray.init`: each call does what the next of `steps` says."""

    def __init__(self, *steps: Callable[[], None]) -> None:
        self.steps, self.calls, self.shutdowns = list(steps), [], 0
        self.environments: list[dict[str, str]] = []
        self.running = False

    def init(self, **options: Any) -> None:
        self.calls.append(options)
        self.environments.append(dict(os.environ))
        self.steps[len(self.calls) - 1]()
        self.running = True

    def shutdown(self) -> None:
        self.shutdowns += 1


def works() -> None:
    pass


def fails() -> None:
    raise RuntimeError("The current node timed out during startup. This could happen.\nmore of it\n")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FakeRay]]:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name in PATIENCE:
        monkeypatch.delenv(name, raising=False)

    def install(*steps: Callable[[], None]) -> FakeRay:
        stand_in = FakeRay(*steps)
        monkeypatch.setattr(ray, "init", stand_in.init)
        monkeypatch.setattr(ray, "shutdown", stand_in.shutdown)
        monkeypatch.setattr(ray, "is_initialized", lambda: stand_in.running)
        return stand_in

    yield install
    for name in PATIENCE:  # which the product sets behind pytest's back
        os.environ.pop(name, None)


def test_a_start_that_succeeds_is_made_once(fake: Callable[..., FakeRay], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "mine")
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "7")
    stand_in = fake(works)
    start_ray()
    assert [call["address"] for call in stand_in.calls] == ["local"]
    environment = stand_in.environments[0]
    assert environment["PYTHONPATH"] == f"{ROOT}{os.pathsep}mine", "workers import the code beside the driver"
    assert environment["RAY_raylet_start_wait_time_s"] == "7", "what the user says stays"
    assert environment["RAY_agent_register_timeout_ms"] == PATIENCE["RAY_agent_register_timeout_ms"]
    assert os.environ["PYTHONPATH"] == "mine"
    assert stand_in.shutdowns == 0


def test_a_start_that_fails_is_tried_once_more(fake: Callable[..., FakeRay], caplog: pytest.LogCaptureFixture) -> None:
    stand_in = fake(fails, works)
    with caplog.at_level("WARNING", "trackmill"):
        start_ray()
    assert len(stand_in.calls) == 2
    assert stand_in.shutdowns == 1, "what the first left behind is ended"
    assert "trying once more" in caplog.text


def test_no_third_try_and_one_line(
    fake: Callable[..., FakeRay], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    logs = tmp_path / "ray" / f"session_2026-01-02_03-04-05_{os.getpid()}" / "logs"
    logs.mkdir(parents=True)
    stand_in = fake(fails, fails)
    with pytest.raises(RayUnavailable) as caught:
        start_ray(without="--executor inline")
    assert len(stand_in.calls) == 2
    text = str(caught.value)
    assert "\n" not in text
    assert "timed out during startup" in text
    assert str(logs) in text
    assert "--executor inline" in text
    assert isinstance(caught.value, JobError), "no mistake of the user"


def test_a_start_that_hangs_ends_at_the_limit(fake: Callable[..., FakeRay]) -> None:
    forever = threading.Event()
    stand_in = fake(lambda: bool(forever.wait()) and None)
    with pytest.raises(RayUnavailable, match=r"no answer in \d+ s.*--launcher local"):
        start_ray(timeout_s=0.3, without="--launcher local")
    assert len(stand_in.calls) == 1, "there is no time left for another"
    assert stand_in.shutdowns == 0, "it would wait for the thread that hangs"
    stand_in.steps[0] = works
    forever.set()


def test_processes_of_a_failed_start_are_ended(
    fake: Callable[..., FakeRay], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "raylet.py"
    script.write_text("import time; time.sleep(600)")
    begun: list[subprocess.Popen[bytes]] = []

    def leave_behind() -> None:
        begun.append(subprocess.Popen([sys.executable, str(script)]))
        fails()

    seen: set[int] = set()
    cmdline = psutil.Process.cmdline

    def at_first_empty(process: psutil.Process) -> list[str]:
        """As the kernel gives it for a process that begins just now."""
        first = process.pid not in seen
        seen.add(process.pid)
        return [] if first else cmdline(process)

    monkeypatch.setattr(psutil.Process, "cmdline", at_first_empty)
    bystander = subprocess.Popen([sys.executable, str(script)])
    try:
        fake(leave_behind, leave_behind)
        with pytest.raises(RayUnavailable):
            start_ray()
        assert len(begun) == 2
        assert [process.wait(timeout=60) for process in begun] == [-9, -9]
        assert bystander.poll() is None, "what was there before is not ours to end"
    finally:
        for process in (*begun, bystander):
            process.kill()
            process.wait()


def test_a_cluster_that_nothing_listens_for(fake: Callable[..., FakeRay], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setattr(ray_cluster, "_CONNECT_S", 1.0)
    stand_in = fake()
    for spelling in (address, f"ray://{address}"):
        monkeypatch.setenv("RAY_ADDRESS", spelling)
        with pytest.raises(RayUnavailable, match=f"RAY_ADDRESS={spelling} cannot be joined: nothing answers.*inline"):
            start_ray(without="--executor inline")
    assert stand_in.calls == []


def test_a_cluster_that_takes_calls_and_does_not_answer(
    fake: Callable[..., FakeRay], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{silent.getsockname()[1]}")
        forever = threading.Event()
        stand_in = fake(lambda: bool(forever.wait()) and None)
        with pytest.raises(RayUnavailable, match="cannot be joined: no answer in"):
            start_ray(timeout_s=1)
        assert "address" not in stand_in.calls[0], "Ray reads RAY_ADDRESS itself"
        assert "PYTHONPATH" not in stand_in.environments[0] or str(ROOT) not in stand_in.environments[0]["PYTHONPATH"]
        stand_in.steps[0] = works
        forever.set()


_REAL = """
import sys
sys.path[0] = {root!r}
import ray, trackmill
from trackmill.pipeline.ray_cluster import start_ray

start_ray()

@ray.remote
def look():
    import my_module, trackmill.pipeline, models
    return trackmill.pipeline.__file__, my_module.WORD, models.WORD

for _ in range(2):
    print(*ray.get(look.remote()), flush=True)

import os, psutil

@ray.remote
def secrets():
    return sorted(name for name in os.environ if name.startswith("TEST_"))

processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
ports = [c.laddr.ip for p in processes for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN]
print(len(ports) > 3, {{ip.removeprefix("::ffff:") for ip in ports}}, ray.get(secrets.remote()))
print(os.environ.get("RAY_AUTH_MODE", "token"), len(os.environ["RAY_AUTH_TOKEN"]), os.environ["TEST_API_KEY"])
folder = ray._private.worker._global_node.get_session_dir_path()
for path in [os.path.join(base, name) for base, _, names in os.walk(folder) for name in names]:
    if os.path.isfile(path) and any(word in open(path, "rb").read() for word in (b"plantedkey", b"plantedsignature")):
        print("found in", path)
ray.shutdown()
"""


@pytest.mark.ray
def test_a_real_start_runs_the_code_beside_the_driver_on_this_machine_alone(tmp_path: Path) -> None:
    """Driven from a folder with modules of its own, among them a `models` like so many have.

    It listens on this machine alone and wants a token; workers do not get what is called a secret, and what stands on
    the command line is not in Ray's folder.
    """
    environment = {name: value for name, value in job_environment().items() if name != "RAY_AUTH_MODE"}
    environment["TRACKMILL_KEEP_ENV"] = "TEST_MINE_TOKEN"
    (tmp_path / "my_module.py").write_text("WORD = 'mine'\n")
    (tmp_path / "models.py").write_text("WORD = 'theirs'\n")
    done = subprocess.run(
        [sys.executable, "-c", _REAL.format(root=str(ROOT)), "https://host/a.pth?X-Amz-Signature=plantedsignature1"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=environment | {"TEST_API_KEY": "plantedkey77", "TEST_MINE_TOKEN": "abcdef77", "TEST_PLAIN": "1"},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    code, alone, guarded, *found = done.stdout.splitlines()[1:]
    assert [done.stdout.splitlines()[0], code] == [f"{ROOT / 'pipeline' / '__init__.py'} mine theirs"] * 2
    assert alone == "True {'127.0.0.1'} ['TEST_MINE_TOKEN', 'TEST_PLAIN']"
    assert guarded == "token 64 plantedkey77" and found == []
    assert "SIGTERM" not in done.stderr


@pytest.mark.ray
def test_a_real_start_that_cannot_succeed_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    """No socket can have so long a name, so Ray's own processes cannot meet."""
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    code = (
        "import psutil\n"
        "from trackmill.pipeline.ray_cluster import RayUnavailable, start_ray\n"
        "try:\n    start_ray(without='--executor inline')\n"
        "except RayUnavailable as error:\n    print(error)\n"
        "left = [child.cmdline() for child in psutil.Process().children(recursive=True)]\n"
        "print([line for line in left if line and any('ray' in part for part in line)])\n"
    )
    environment = job_environment(RAY_TMPDIR=str(folder))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    line, left = done.stdout.splitlines()
    assert line.startswith("Ray could not be started on this machine: ")
    assert str(folder) in line
    assert line.endswith("without Ray: --executor inline")
    assert left == "[]"
    assert "Traceback" not in done.stderr
