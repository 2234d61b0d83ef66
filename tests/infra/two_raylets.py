"""The commands of the manifests on a real Ray cluster: `python -m tests.infra.two_raylets` shows it, about six minutes.

A head that offers no CPU and a second raylet, as the manifests have them, guarded by a token. The commands are those of
the RayJobs and of what the schedule's script creates, submitted by `ray job submit`; URLs become folders of this
machine, the model a tiny one, GPUs CPUs, and the numbers smaller.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.faults.training_runs import tiny_toml
from tests.infra.manifests import one, spoken
from tests.infra.test_schedule import Cluster
from tests.make_media import make_sa1b_folder
from tests.runs import ROOT, TIMEOUT_S, job_environment
from tests.training.tiny_runs import make_data
from trackmill.pipeline.ray_cluster import PATIENCE

RAY = str(Path(sys.executable).parent / "ray")
WEEKS = ("2026-w49", "2026-w50")
_TRIES = 3
"""A busy machine needs more time for Ray's start than Ray gives it, or another test has taken a port meanwhile."""


class Raylets:
    """A cluster of a head and one more raylet, until `stop`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[subprocess.Popen[bytes]] = []
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        self.environment = job_environment(
            RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token), RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="0.2", **PATIENCE
        )
        port, dashboard = free_port(), free_port()
        self.dashboard = f"http://127.0.0.1:{dashboard}"
        try:
            self._start("head", "--head", f"--port={port}", "--num-cpus=0", f"--dashboard-port={dashboard}")
            self._start("second", f"--address=127.0.0.1:{port}", "--num-cpus=2")
        except BaseException:
            self.stop()
            raise

    def _start(self, name: str, *arguments: str) -> None:
        for attempt in range(_TRIES):
            log = self._folder / f"{name}-{attempt}.log"
            ports = [f"--dashboard-agent-listen-port={free_port()}", f"--metrics-export-port={free_port()}"]
            if "--head" in arguments:
                ports.append(f"--ray-client-server-port={free_port()}")
            command = [RAY, "start", "--block", "--disable-usage-stats", *arguments, *ports]
            with open(log, "wb") as out:
                process = subprocess.Popen(
                    command, stdout=out, stderr=out, env=self.environment, start_new_session=True
                )
            self._started.append(process)
            while process.poll() is None:
                if "Ray runtime started" in log.read_text():
                    return
                time.sleep(0.2)
        raise AssertionError(f"{name} did not start:\n{log.read_text()}")

    def submit(self, words: list[str], **environment: str) -> tuple[int, str]:
        """Submit a job; its exit code as `ray job submit` says it, and what it printed."""
        command = [RAY, "job", "submit", "--address", self.dashboard, "--working-dir", ".", "--", *words]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=2 * TIMEOUT_S,
        )
        return done.returncode, done.stdout

    def stop(self) -> None:
        """End both, by their process numbers."""
        for process in reversed(self._started):
            family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            for each in family:
                with contextlib.suppress(psutil.Error):
                    each.kill()
            process.kill()
            process.wait(timeout=60)


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def localised(line: str, values: dict[str, str], dropped: tuple[str, ...] = ()) -> list[str]:
    """A command line of a manifest with other values of some options and settings, each of which it must have."""
    words, left = spoken(line), set(values) | set(dropped)
    made = [sys.executable]
    position = 1
    while position < len(words):
        word, following = words[position], words[position + 1] if position + 1 < len(words) else ""
        name = following.partition("=")[0] if word == "--set" else word
        if name in dropped:
            left.discard(name)
            position += 2
        elif name in values:
            left.discard(name)
            made += [word, f"{name}={values[name]}"] if word == "--set" else [word, values[name]]
            position += 2
        else:
            made.append(word)
            position += 1
    assert not left, f"the manifest has no {sorted(left)} any more"
    return made


def mining(source: Path, output: Path) -> list[str]:
    """The RayJob's command for this machine."""
    values = {"--input": str(source), "--output": str(output), "--proposer": "graph", "--workers": "2"}
    line = one("RayJob", "trackmill-mine")["spec"]["entrypoint"]
    return localised(line, {**values, "run.gpus_per_actor": "0"}, dropped=("--model", "--weights"))


def scheduled(folder: Path, week: str, data: str) -> list[str]:
    """What the schedule's script creates in a week, for this machine; the output's last part stays the week's."""
    folder.mkdir(exist_ok=True)
    cluster = Cluster(folder, one("RayCronJob", "trackmill-train"))
    (folder / "date").write_text(f"#!/bin/sh\necho {week}\n")
    (folder / "date").chmod(0o755)
    done = cluster.start()
    assert done.returncode == 0, done.stderr
    line = cluster.created[0]["spec"]["entrypoint"]
    given = spoken(line)[spoken(line).index("--output") + 1]
    assert given.rpartition("/")[2] == week
    values = {
        "--recipe": tiny_toml(folder),
        "--data": data,
        "--output": str(folder / "runs" / given.rpartition("/")[2]),
        "--workers": "2",
        "--device": "cpu",
        "--engine": "torch",
        "data.workers": "0",
        "data.cache": str(folder / "shards"),
        "ray.cpus_per_worker": "1",
    }
    return localised(line, values, dropped=("model.backbone_weights",))


def demonstrate(folder: Path) -> Iterator[tuple[str, int, str]]:
    """Start everything twice: what was started, the exit code, what it printed."""
    make_sa1b_folder(folder / "sa1b", count=6)
    data = make_data(folder / "data")
    raylets = Raylets(folder)
    try:
        stranger = {"RAY_AUTH_TOKEN_PATH": "", "RAY_AUTH_TOKEN": "0" * 64}
        yield "a stranger's job", *raylets.submit([sys.executable, "-c", "print('let', 'in')"], **stranger)
        words = mining(folder / "sa1b", folder / "mined")
        yield "mining", *raylets.submit(words)
        yield "mining again", *raylets.submit(words)
        first, second = (scheduled(folder / "schedule", week, data) for week in WEEKS)
        yield f"training of {WEEKS[0]}", *raylets.submit(first)
        yield f"training of {WEEKS[0]} again", *raylets.submit(first)
        yield f"training of {WEEKS[1]}", *raylets.submit(second)
    finally:
        raylets.stop()


def main() -> None:
    """Print what was started, how it ended, and its last words."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="raylets-") as folder:
        for name, code, printed in demonstrate(Path(folder)):
            telling = ("done:", "goes on", "starts at", "nothing is left", "weights:", "Unauthorized", "uthentication")
            lines = [line for line in printed.splitlines() if any(word in line for word in telling)]
            print(f"{name}: exit code {code}", *(f"    {line}" for line in lines[-4:]), sep="\n", flush=True)


if __name__ == "__main__":
    main()
