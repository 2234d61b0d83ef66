"""What a run of mining under chaos has: corpus, cluster, disk, store, clock, and the ledger of what was done."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.chaos.cluster import Cluster
from tests.chaos.disk import NoDisk, SmallDisk
from tests.chaos.items import make_items
from tests.chaos.ledger import Ledger
from tests.chaos.processes import MARK
from tests.chaos.schedule import Event, events
from tests.chaos.store import FaultyStore, faulty_store
from tests.runs import ROOT

UNIT_ITEMS = 8
ITEM_S = 0.03
ACTORS = 6
DISK = "96m"
ITEM_TIMEOUT_S = 20.0
"""Some SIGSTOPs are longer."""

_CLOCK = Path(__file__).with_name("clock")
WEIGHTS = {
    "SIGKILL of an actor": 54.0,
    "SIGKILL of a part": 24.0,
    "SIGKILL of the driver": 4.0,
    "SIGKILL of a raylet": 1.5,
    "SIGKILL of a raylet and all on its node": 1.5,
    "SIGKILL of the GCS": 0.7,
    "SIGTERM of the driver": 1.0,
    "SIGTERM of an actor": 2.0,
    "SIGSTOP of an actor, seconds": 4.0,
    "SIGSTOP of an actor, longer than any limit": 1.0,
    "SIGSTOP of a part, longer than its claim": 1.0,
    "SIGSTOP of a raylet until it is given up": 0.5,
    "no room on the disk": 2.0,
    "the clock jumps": 3.0,
}
"""How often each is drawn, in about a hundred."""

HEAVY = (
    "SIGKILL of the GCS",
    "SIGSTOP of a raylet until it is given up",
    "no room on the disk",
    "SIGKILL of the driver",
)
GAP = (1, 6)
"""Units between two events."""


@dataclass
class Setting:
    """See the module.

    Args:
        folder: of the run.
        mark: of its processes.
        expected: what each item is to become, by path.
        parts: engine-free processes beside the driver.
        disk: None where nobody may mount one.
    """

    folder: Path
    mark: str
    seed: int
    expected: dict[str, str]
    parts: int
    cluster: Cluster
    disk: SmallDisk | None
    store: FaultyStore
    ledger: Ledger
    events: Iterator[Event]
    notices: list[str] = field(default_factory=list)
    items_done: int = 0
    starts: int = 0

    @property
    def bad(self) -> list[str]:
        """Items that must be refused."""
        return [name for name, what in self.expected.items() if what != "ok"]

    @property
    def undisturbed(self) -> Path:
        """Root of the data set that nothing happened to."""
        return self.folder / "undisturbed"

    @property
    def tmp(self) -> Path:
        """Where processes of the run keep scratch files."""
        return self.folder / "t"

    @property
    def clock(self) -> Path:
        """Holds by how many seconds the clock is wrong."""
        return self.folder / "clock"

    def command(self, output: str) -> list[str]:
        """The job, as people type it."""
        words = [sys.executable, "-m", "trackmill.jobs.mine_proposals", "--input", str(self.folder / "in")]
        words += ["--output", output, "--proposer", "tests.chaos.tiny_proposer:TinyProposer"]
        for key, value in {
            "shards.unit_frames": UNIT_ITEMS,
            "proposer_settings.seconds": ITEM_S,
            "run.item_timeout_s": ITEM_TIMEOUT_S,
        }.items():
            words += ["--set", f"{key}={value}"]
        return words

    def words(self) -> list[str]:
        """What a command begins with that is to see the small disk."""
        return self.disk.words if self.disk else []

    def own_processes(self) -> list[psutil.Process]:
        """Of the harness itself."""
        return [psutil.Process(self.disk.keeper)] if self.disk else []

    def facts(self) -> list[str]:
        """What the table does not say."""
        hits = ", ".join(f"{count} {name}" for name, count in self.store.proxy.hits.items())
        return [
            f"object store: {self.store.proxy.requests:,} requests, of which failed: {hits}",
            f"drivers and parts were started {self.starts} times, nodes {self.cluster.starts} times",
            *self.notices,
        ]


def has_parts() -> bool:
    """Whether the job does a share of the work without Ray."""
    command = [sys.executable, "-m", "trackmill.jobs.mine_proposals", "--help"]
    return "--part " in subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


@contextlib.contextmanager
def mining_setting(
    folder: Path, mark: str, seed: int, items: int, parts: int, gap: tuple[int, int] = GAP
) -> Iterator[Setting]:
    """Make one; what it holds besides processes of the cluster ends with the block."""
    with contextlib.ExitStack() as stack:
        notices = []
        (folder / "t").mkdir()
        (folder / "logs").mkdir()
        expected = make_items(folder / "in", items, seed)
        store = stack.enter_context(faulty_store(seed))
        disk: SmallDisk | None = None
        try:
            disk = SmallDisk(folder / "disk", DISK, mark)
            stack.callback(disk.end)
        except NoDisk as error:
            notices.append(f"no full disk: {error}")
        if parts and not has_parts():
            parts = 0
            notices.append("no parts: the job knows no --part")
        environment = {
            "TMPDIR": str(folder / "t"),
            "PYTHONPATH": str(_CLOCK),
            "CHAOS_CLOCK": str(folder / "clock"),
            # The image for mining has none, and pyarrow imports it where it is: a second of each start.
            "CHAOS_HIDDEN": "pandas",
            MARK: mark,
        }
        cluster = Cluster(mark, folder / "logs", environment=environment, words=disk.words if disk else [])
        yield Setting(
            folder=folder,
            mark=mark,
            seed=seed,
            expected=expected,
            parts=parts,
            cluster=cluster,
            disk=disk,
            store=store,
            ledger=Ledger("items", folder / "events.log"),
            events=events(seed, WEIGHTS, gap),
            notices=notices,
        )
