"""What an older commit made, read and continued by this one: data set, training run, export.

Run it with `python -m tests.compatibility.older_checkout --commit REVISION` in a clone that has the commit. The
older code is unpacked into a folder of its own and run by the same interpreter. Then this checkout verifies, resumes
and loads the results, and makes the same once more. All bytes are compared; only times in receipts are left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from trackmill.models.masa import load
from trackmill.pipeline.shards.receipts import ADDED_LATER
from trackmill.pipeline.sources.packaged import packaged_media

ROOT = Path(__file__).resolve().parents[2]
BEFORE_ROOMS = "6913bfc"
"""The last commit whose packages were `models`, `pipeline`, ...; the oldest that this script knows how to run."""

TIMEOUT_S = 900
_MINE = (
    "--executor",
    "inline",
    "--set",
    "read.longest_side=256",
    "--set",
    "read.label_fps=0.5",
    "--set",
    "shards.unit_frames=2",
)
_TRAIN = (
    *("--recipe", "masa_lite0", "--seed", "3", "--checkpoint-every", "2"),
    *(
        "--set",
        "schedule.steps=4",
        "--set",
        "schedule.warmup_steps=1",
        "--set",
        "data.batch_size=2",
        "--set",
        "data.workers=0",
    ),
    *("--set", "views.size=64", "--set", "views.min_side=4.0", "--set", "objects.min_side=4.0"),
    *("--set", "telemetry.tensorboard=false"),
)
_TIMES = {"seconds", "attempts"}
"""Columns of receipts that differ between two runs of the same code."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """A tree of the project whose jobs are run as people run them."""

    root: Path

    def job(self, name: str, *arguments: object) -> str:
        """Run `jobs/NAME.py` to its end; returns what it printed.

        Raises:
            RuntimeError: it ended with another status than 0; holds its output.
        """
        # An editable install may lead elsewhere: this tree comes first.
        environment = {**os.environ, "PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(self.root / "jobs" / f"{name}.py"), *map(str, arguments)]
        done = subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr


def unpack(commit: str, folder: Path) -> Checkout:
    """The files of a commit in a folder of their own.

    Raises:
        LookupError: this clone does not have the commit.
    """
    archive = folder / "older.tar"
    command = ["git", "-C", str(ROOT), "archive", "--output", str(archive), commit]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LookupError(f"this clone does not have commit {commit}: {done.stderr.strip()}")
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "checkout", filter="data")
    return Checkout(folder / "checkout")


def compare_data_sets(older: Checkout, newer: Checkout, folder: Path) -> None:
    """Mine with both; continue with the newer what the older began."""
    media = packaged_media()
    for checkout, name in ((older, "older"), (newer, "newer")):
        checkout.job("mine_proposals", "--input", *media, "--output", folder / name, "--limit", 6, *_MINE)
    _expect_same(_mined(folder / "older"), _mined(folder / "newer"), "a data set mined by both")

    assert "nothing" in newer.job(
        "mine_proposals", "--input", *media, "--output", folder / "older", "--limit", 6, *_MINE
    ), "the newer code does not see that the older one finished the data set"
    newer.job("inspect_shards", folder / "older", "--verify")

    shutil.copytree(folder / "older", folder / "continued")
    for checkout, name in ((older, "older"), (newer, "continued")):
        checkout.job("mine_proposals", "--input", *media, "--output", folder / name, "--limit", 9, *_MINE)
    _expect_same(_mined(folder / "older"), _mined(folder / "continued"), "a data set continued by both")


def compare_training(older: Checkout, newer: Checkout, folder: Path) -> None:
    """Train with both on the older data set; resume with the newer what the older began."""
    data = folder / "older"
    older.job("train", *_TRAIN, "--data", data, "--output", folder / "run-half", "--max-steps", 2)
    for checkout, name in ((older, "run-older"), (newer, "run-newer"), (newer, "run-half")):
        checkout.job("train", *_TRAIN, "--data", data, "--output", folder / name)
    wanted = _trained(folder / "run-older")
    _expect_same(wanted, _trained(folder / "run-newer"), "a run trained by both")
    _expect_same(wanted, _trained(folder / "run-half"), "a run that the older code began and the newer ended")


def compare_exports(older: Checkout, newer: Checkout, folder: Path) -> None:
    """Export the older run with both, and load what the older code exported."""
    for checkout, name in ((older, "export-older"), (newer, "export-newer")):
        checkout.job("export", "--run", folder / "run-older", "--output", folder / name, "--onnx")
    names = ("masa_lite0.safetensors", "masa_lite0.onnx")
    _expect_same(
        {name: _sha256(folder / "export-older" / name) for name in names},
        {name: _sha256(folder / "export-newer" / name) for name in names},
        "an export made by both",
    )
    model = load("masa_lite0", folder / "export-older" / "masa_lite0.safetensors")
    assert model.variant.name == "masa_lite0"


def _mined(root: Path) -> dict[str, object]:
    """Digest of each shard, rows of each receipt as older ones have them, of each plan, and the fingerprint."""
    found: dict[str, object] = {path.name: _sha256(path) for path in sorted((root / "shards").iterdir())}
    for path in sorted((root / "receipts").iterdir()):
        table = pq.read_table(path)
        found[f"receipt {path.name}"] = table.drop_columns(
            [name for name in table.column_names if name in (*_TIMES, *ADDED_LATER)]
        ).to_pylist()
    for path in sorted((root / "plan").iterdir()):
        found[f"plan {path.name}"] = pq.read_table(path).to_pylist()
    # Settings that change nothing in the data set may be added, and stand there too.
    found["fingerprint"] = json.loads((root / "config.json").read_bytes())["fingerprint"]
    return found


def _trained(root: Path) -> dict[str, object]:
    """Digests of the weights: the result and each checkpoint's."""
    found = {str(path.relative_to(root)): _sha256(path) for path in sorted(root.rglob("*.safetensors"))}
    assert "final/model.safetensors" in found, f"{root} has no result"
    return dict(found)


def _expect_same(wanted: dict[str, object], found: dict[str, object], what: str) -> None:
    differing = [name for name in sorted({*wanted, *found}) if wanted.get(name) != found.get(name)]
    assert not differing, f"{what} differs in {', '.join(differing)}"
    print(f"same: {what} ({len(wanted)} files)", flush=True)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def compare(commit: str, folder: Path) -> None:
    """All of it, in `folder`.

    Raises:
        AssertionError: something differs; says what.
        RuntimeError: a job failed.
        LookupError: see `unpack`.
    """
    older, newer = unpack(commit, folder), Checkout(ROOT)
    compare_data_sets(older, newer, folder)
    compare_training(older, newer, folder)
    compare_exports(older, newer, folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commit", default=BEFORE_ROOMS, help=f"the older commit (default {BEFORE_ROOMS})")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="trackmill-compatibility-") as folder:
        compare(options.commit, Path(folder))


if __name__ == "__main__":
    main()
