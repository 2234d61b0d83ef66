"""A real Ray cluster on this machine: a head (GCS, no workers) and two raylets, each a process that can be killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.chaos.processes import MARK, descendants, end_all, is_running, send, title
from tests.runs import ROOT, job_environment

START_S = 240.0
# Until the raylet of a node that starts is seen; on a quiet machine that takes 3 s.
SEEN_S = 60.0
RAYLETS = 2
_UP = "Ray runtime started"
_PORTS = (
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
    "node-manager-port",
    "object-manager-port",
)
TRIES = 5


class ClusterFailed(Exception):
    """Ray did not start; the text holds the end of its log."""


def free_port() -> int:
    """A port below those that the kernel gives out by itself: one of those may be taken again before it is used."""
    for port in range(20000 + os.getpid() % 6000, 32000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        with _lock:
            if port not in _taken:
                _taken.add(port)
                return port
    raise ClusterFailed("no free port between 20000 and 32000")


_taken: set[int] = set()
_lock = threading.Lock()


@dataclass
class Node:
    """One `ray start --block`."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def alive(self) -> bool:
        """Whether its first process lives; that ends when one of Ray's own ends."""
        return self.process.poll() is None

    def child(self, program: str) -> psutil.Process | None:
        """The process of it that runs `raylet` or `gcs_server`."""
        for process in descendants(self.process.pid):
            if title(process).partition(" ")[0].endswith(f"/{program}"):
                return process
        return None

    def actors(self, name: str) -> list[psutil.Process]:
        """Its workers that run an actor of the class `name`, in the order of their pids."""
        return [each for each in descendants(self.process.pid) if title(each).startswith(f"ray::{name}")]


@dataclass
class Cluster:
    """Head and raylets, started one after the other and started again when asked.

    Args:
        run: mark of all processes, see `tests.chaos.processes`.
        folder: for the logs.
        cpus: of each raylet; the head has none, so that no actor runs there.
        words: what each command begins with.
        environment: of all processes, beside what they need.
    """

    run: str
    folder: Path
    cpus: int = 3
    words: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    head: Node | None = None
    raylets: list[Node] = field(default_factory=list)
    starts: int = 0

    def __post_init__(self) -> None:
        self._port = free_port()
        self.address = f"127.0.0.1:{self._port}"

    def env(self, **extra: str) -> dict[str, str]:
        """Of everything that belongs to the run."""
        path = os.pathsep.join(filter(None, (str(ROOT), self.environment.get("PYTHONPATH", ""))))
        return job_environment(
            **{
                "OMP_NUM_THREADS": "1",
                "RAY_USAGE_STATS_ENABLED": "0",
                # Workers that nobody has asked for would be started after each kill.
                "RAY_enable_worker_prestart": "0",
                "RAY_prestart_worker_first_driver": "0",
                # Whoever loses the GCS gives up soon, and the harness starts it again.
                "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
                "RAY_health_check_initial_delay_ms": "3000",
                "RAY_health_check_period_ms": "1000",
                "RAY_health_check_failure_threshold": "5",
                MARK: self.run,
                **self.environment,
                "PYTHONPATH": path,
                **extra,
            }
        )

    def begin(self) -> None:
        """Start all of it."""
        self.start_head()
        for index in range(RAYLETS):  # two at once on one machine would choose the same socket, and one aborts
            self.raylets.append(self._raylet(index))

    def start_head(self) -> None:
        """Start the head, with the GCS."""
        words = ["--head", f"--port={self._port}", "--num-cpus=0", "--include-dashboard=false"]
        self.head = self._start("head", *words, f"--ray-client-server-port={free_port()}")

    def restart_raylet(self, index: int) -> None:
        """End what is left of a node and start it anew."""
        self.end_node(self.raylets[index])
        self.raylets[index] = self._raylet(index)

    def restart(self) -> None:
        """End what is left of all nodes and start them anew: without its GCS a cluster forgets all it knew."""
        self.end()
        self.begin()

    def end_node(self, node: Node) -> None:
        """SIGKILL all of it."""
        family = descendants(node.process.pid)
        send(node.process.pid, signal.SIGKILL)
        node.process.wait(timeout=60)
        end_all(family)

    def end(self) -> None:
        """SIGKILL all of it."""
        for node in [*self.raylets, *([self.head] if self.head else [])]:
            self.end_node(node)
        self.raylets, self.head = [], None

    def actors(self, name: str) -> list[psutil.Process]:
        """Workers of all nodes that run an actor of the class `name`."""
        found = [each for node in self.raylets.copy() for each in node.actors(name) if is_running(each)]
        return sorted(found, key=lambda each: each.pid)

    def _raylet(self, index: int) -> Node:
        words = (f"--address={self.address}", f"--num-cpus={self.cpus}")
        return self._start(f"raylet-{index}", *words)

    def _start(self, name: str, *words: str) -> Node:
        for left in reversed(range(TRIES)):
            try:
                return self._start_once(name, *words)
            except ClusterFailed:
                if not left:
                    raise
        raise AssertionError("not reached")

    def _start_once(self, name: str, *words: str) -> Node:
        self.starts += 1
        log = self.folder / f"{name}-{self.starts:04d}.log"
        command = [*self.words, str(Path(sys.executable).parent / "ray"), "start", "--block", "--disable-usage-stats"]
        command += ["--node-ip-address=127.0.0.1", "--include-log-monitor=false", f"--object-store-memory={80 << 20}"]
        # All named, so that no two nodes choose the same one.
        command += [f"--{name}={free_port()}" for name in _PORTS]
        command += words
        with open(log, "wb") as handle:
            process = subprocess.Popen(command, stdout=handle, stderr=handle, env=self.env(), start_new_session=True)
        node = Node(name, process, log)
        begun = time.monotonic()
        seen = False
        while _UP not in log.read_text(errors="replace"):
            time.sleep(0.5)  # looking at all processes takes time from those that start
            # A raylet aborts where its agent needs more than 15 s to start; `ray start` waits on for minutes.
            raylet = node.child("raylet") is not None
            aborted, seen = seen and not raylet, seen or raylet
            took_s = time.monotonic() - begun
            missing = not seen and took_s > SEEN_S  # it aborted between two looks
            if aborted or missing or not node.alive() or took_s > START_S:
                self.end_node(node)
                raise ClusterFailed(f"{name} did not start:\n{log.read_text(errors='replace')[-2000:]}")
        return node
