"""SIGKILL of an actor, the driver, a whole node, a worker on one item: the same command goes on to the end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from PIL import Image

from tests.make_media import make_pictures, make_video
from tests.runs import (
    TIMEOUT_S,
    job_environment,
    mine,
    miner_pids,
    receipts_written,
    rows,
    start_mining,
    statuses,
    tars,
    wait_for,
)
from trackmill.pipeline.workers.inflight import peek_note

pytestmark = pytest.mark.ray
NUM_PICTURES = 16


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures and a video that take some seconds to mine."""
    folder = tmp_path_factory.mktemp("media")
    make_pictures(folder, count=NUM_PICTURES, height=360, width=480)
    make_video(folder / "clip.mp4", 40, 24, (180, 240))
    return folder


def options(media: Path, output: Path) -> list[object]:
    """Small units, so that there are some before and some after the kill."""
    return ["--input", media, "--output", output, "--actors", 2, "--set", "shards.unit_frames=2"]


@pytest.fixture(scope="module")
def undisturbed(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that nothing happened to: in one process, without Ray."""
    output = tmp_path_factory.mktemp("undisturbed")
    mine(*options(media, output), "--executor", "inline")
    return output


def check_same(output: Path, undisturbed: Path) -> None:
    """Every item once, and the bytes of an undisturbed run."""
    assert statuses(output) == statuses(undisturbed)
    assert tars(output) == tars(undisturbed)
    assert not list((output / "shards").glob(".tmp*")), "a killed process left scratch files behind"


def kill(pid: int) -> None:
    """SIGKILL, by pid."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.slow  # tests/sidecars kills a process in the middle
def test_actor_killed(media: Path, undisturbed: Path, tmp_path: Path) -> None:
    process = start_mining(*options(media, tmp_path))
    wait_for(lambda: receipts_written(tmp_path) >= 1, "the first unit", process)
    victims = miner_pids(process.pid)
    assert victims
    kill(victims[0])
    printed = process.communicate(timeout=TIMEOUT_S)[0]
    assert process.returncode == 0, printed
    assert not any(pid in miner_pids_alive() for pid in victims[:1])
    mine(*options(media, tmp_path))
    check_same(tmp_path, undisturbed)


def miner_pids_alive() -> set[int]:
    """Pids of all processes of this machine."""
    return set(psutil.pids())


@pytest.mark.slow  # tests/sidecars kills a process in the middle
def test_driver_killed(media: Path, undisturbed: Path, tmp_path: Path) -> None:
    process = start_mining(*options(media, tmp_path))
    wait_for(lambda: receipts_written(tmp_path) >= 2, "two units", process)
    kill(process.pid)
    process.wait(timeout=TIMEOUT_S)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "receipts").iterdir()}
    assert receipts_written(tmp_path) < receipts_written(undisturbed), "killed too late to prove anything"
    mine(*options(media, tmp_path))
    check_same(tmp_path, undisturbed)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "receipts").iterdir()}
    assert all(after[name] == stamp for name, stamp in before.items() if name in after), (
        "a finished unit was done again"
    )


@pytest.mark.slow  # who is to blame is decided in tests/mining without Ray
def test_worker_killed_twice_on_one_item(media: Path, undisturbed: Path, tmp_path: Path) -> None:
    """The system's killer strikes whenever one item is in hand: that item is quarantined, its neighbours are not."""
    output = tmp_path / "out"
    arguments = ["--input", media, "--output", output, "--actors", 1, "--set", "shards.unit_frames=6"]
    arguments += ["--set", "graph.backend=skimage"]  # the slower one: the item must be in hand long enough to be seen
    notes = Path(tempfile.mkdtemp(prefix="t"))  # short: Ray puts sockets below it
    process = start_mining(*arguments, TMPDIR=str(notes))
    deaths = 0
    deadline = time.monotonic() + TIMEOUT_S
    while process.poll() is None:
        assert time.monotonic() < deadline
        for path in notes.glob("trackmill-*/.tmp-*-in-hand.part"):
            if any(held.unit == 1 and 2 in held.positions for held in peek_note(str(path))):
                kill(int(path.name.split("~")[1]))
                deaths += 1
                wait_for(lambda gone=path: not gone.exists(), "the pool to read the note", process)
        time.sleep(0.002)
    printed = process.communicate()[0]
    assert process.returncode == 0, printed
    assert deaths == 2, f"{deaths} workers were killed on the item"
    bad = [row for row in rows(output) if row.status == "quarantined"]
    assert [(row.unit, row.position, row.error_class) for row in bad] == [(1, 2, "WorkerDied")]
    assert len(statuses(output)) == len(statuses(undisturbed))
    mine(*arguments, "--only-quarantined")
    assert statuses(output) == statuses(undisturbed)


@pytest.mark.slow  # what it decides is tested without Ray in tests/mining/test_limits.py
def test_an_item_that_mining_hangs_on_is_ended_and_blamed(tmp_path: Path) -> None:
    """No decoder is to blame here, so the worker itself ends; its unit is done again without the item."""
    folder, output = tmp_path / "in", tmp_path / "out"
    make_pictures(folder, count=3, height=96, width=128)
    Image.new("RGB", (128, 96)).save(folder / "black.png")
    arguments = ["--input", folder, "--output", output, "--actors", 1, "--set", "run.item_timeout_s=5"]
    printed = mine(*arguments, "--proposer", "tests.mining.hanging_proposer:Hanging")
    assert statuses(output) == {str(path): "quarantined" if path.stem == "black" else "ok" for path in folder.iterdir()}
    (bad,) = (row for row in rows(output) if row.status == "quarantined")
    assert bad.error_class == "TimeLimit" and "mining it takes longer than `run.item_timeout_s`" in bad.reason
    assert "ended itself" in printed


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def two_nodes(tmp_path: Path):
    """A real Ray cluster of two nodes on this machine: the address and dashboard of the first, the second's raylet."""
    port, dashboard, agents = free_port(), free_port(), [free_port() for _ in range(2)]
    ray = str(Path(sys.executable).parent / "ray")
    started: list[subprocess.Popen[bytes]] = []

    def begin(name: str, *arguments: str) -> subprocess.Popen[bytes]:
        log = open(tmp_path / f"{name}.log", "wb")  # noqa: SIM115 - belongs to the process
        command = [ray, "start", "--block", "--num-cpus=1", "--disable-usage-stats", *arguments]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=job_environment(), start_new_session=True)
        started.append(process)
        return process

    head = begin(
        "head",
        "--head",
        f"--port={port}",
        "--include-dashboard=true",
        f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={agents[0]}",
        f"--ray-client-server-port={free_port()}",
    )
    wait_for(lambda: "Ray runtime started" in (tmp_path / "head.log").read_text(), "the head node", head)
    second = begin("second", f"--address=127.0.0.1:{port}", f"--dashboard-agent-listen-port={agents[1]}")
    wait_for(lambda: "Ray runtime started" in (tmp_path / "second.log").read_text(), "the second node", second)
    yield f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", second
    for process in (second, head):
        for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
            kill(child.pid)
        kill(process.pid)
        process.wait(timeout=60)


@pytest.mark.slow  # a minute; tests/jobs mines on Ray, tests/sidecars kills a process in the middle
def test_node_killed_and_job_submitted(
    media: Path, undisturbed: Path, tmp_path: Path, two_nodes: tuple[str, str, subprocess.Popen[bytes]]
) -> None:
    address, dashboard, second = two_nodes
    output = tmp_path / "killed"
    process = start_mining(*options(media, output), RAY_ADDRESS=address)
    wait_for(lambda: receipts_written(output) >= 1, "the first unit", process)
    wait_for(lambda: miner_pids(second.pid), "an actor on the second node", process)
    for child in psutil.Process(second.pid).children(recursive=True):
        kill(child.pid)
    printed = process.communicate(timeout=TIMEOUT_S)[0]
    assert process.returncode == 0, printed
    mine(*options(media, output), RAY_ADDRESS=address)
    check_same(output, undisturbed)

    # The same cluster, what is left of it, takes a submitted job.
    submitted = tmp_path / "submitted"
    command = [str(Path(sys.executable).parent / "ray"), "job", "submit", "--address", dashboard, "--working-dir", "."]
    command += ["--", sys.executable, "jobs/mine_proposals.py", *map(str, options(media, submitted))]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_S, env=job_environment(), cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "done:" in done.stdout
    check_same(submitted, undisturbed)
