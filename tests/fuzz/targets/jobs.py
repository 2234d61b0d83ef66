"""Whole jobs, run by their frame in this process: an exit code of the table, no traceback, nothing unprintable."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import gettempdir

from tests.fuzz.target import Broken, Files, Refused, Target, files_of, write_files
from tests.fuzz.targets import archives, datasets, labels, settings, tracks, videos
from tests.fuzz.targets.media import EMPTY
from tests.make_media import jpeg_bytes, make_scene

_CODES = {0, 1, 2, 3, 4}
_MINE = ("--input", "@/in", "--output", "@/out", "--executor", "inline", "--config", "@/run.toml")


def _job(name: str, *words: str) -> Callable[[Path], object]:
    """Runs a job; `@` in a word is the input's folder."""

    def run(folder: Path) -> object:
        job = import_module(f"trackmill.jobs.{name}").JOB
        code, printed, told = _captured(lambda: job.main([word.replace("@", str(folder)) for word in words]))
        text = printed + told
        if "Traceback (most recent" in told or "traceback: " in told:
            raise Broken(told)
        if code not in _CODES:
            raise Broken(f"exit code {code}: {told}")
        odd = sorted({char for char in text if not (char.isprintable() or char in "\n\t")})
        if odd:
            raise Broken(f"printed {odd}: {text}")
        lines = [line for line in told.splitlines() if line.startswith("error: ")]
        if code == 2 and len(lines) != 1:
            raise Broken(f"{len(lines)} lines say what the mistake is: {told}")
        if lines or code:  # of faults that a check lists, each line is judged where the check itself is a target
            raise Refused([line.removeprefix("error: ") for line in lines])
        return code

    return run


def _captured(run: Callable[[], int]) -> tuple[int, str, str]:
    """Exit code, and what went to standard output and standard error."""
    kept = sys.stdout, sys.stderr
    streams = [io.TextIOWrapper(_Kept(), encoding="utf-8", errors="strict", write_through=True) for _ in range(2)]
    try:
        sys.stdout, sys.stderr = streams
        code = run()
    finally:
        sys.stdout, sys.stderr = kept
    return (code, *(stream.buffer.getvalue().decode("utf-8", "replace") for stream in streams))  # type: ignore[attr-defined]


class _Kept(io.BytesIO):
    """Bytes that stay readable when a wrapper around them is closed."""

    def close(self) -> None:
        """Keep them."""


@cache
def _media() -> list[Files]:
    (sa1b,) = labels.ALL[0].seeds()
    (video,) = videos.ALL[0].seeds()[:1]
    (tar,) = archives.ALL[0].seeds()[:1]
    picture = {"loose.jpg": jpeg_bytes(make_scene(24, 32)[0])}
    inputs = {f"in/{name}": data for name, data in {**sa1b, **picture, **video, **tar}.items()}
    (toml,) = settings.ALL[0].seeds()
    return [{**inputs, **toml}]


@cache
def _mined() -> list[Files]:
    """What a finished run left, beside other inputs for the same command."""
    from trackmill.pipeline.shards.layout import Layout
    from trackmill.pipeline.shards.manifest import write_manifest
    from trackmill.pipeline.shards.receipts import read_receipts, write_receipt

    (files,) = _media()
    # Always the same place, since the names of inputs decide what is written.
    root = Path(gettempdir(), f"trackmill-fuzz-{os.getuid()}")
    shutil.rmtree(root, ignore_errors=True)
    try:
        write_files(files, root)
        words = [word.replace("@", str(root)) for word in _MINE]
        code, _, told = _captured(lambda: import_module("trackmill.jobs.mine_proposals").JOB.main(words))
        assert code == 0, told
        layout = Layout(str(root / "out"))
        receipts = read_receipts(layout)
        for receipt in receipts:  # without what differs from one time to the next
            rows = [replace(row, seconds=0.0) for row in receipt.rows]
            write_receipt(layout, receipt.unit, rows, receipt.shards, receipt.fingerprint)
        write_manifest(layout)
        return [files_of(root)]
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _frames() -> list[Files]:
    detections = [files for files in tracks.ALL[-1].seeds() if "detections.json" not in files]
    frames = {f"v/{i:06d}.jpg": jpeg_bytes(make_scene(24, 32, step=i)[0]) for i in range(1, 4)}
    return [{**frames, **{f"d{Path(name).suffix}": data for name, data in files.items()}} for files in detections]


def _track(folder: Path) -> object:
    suffix = ".parquet" if (folder / "d.parquet").exists() else ".txt"
    words = ("--video", "@/v", "--detections", f"@/d{suffix}", "--output", "@/out", "--model", "masa_lite0")
    return _job("track", *words, "--set", "size.long_side=64", "--device", "cpu")(folder)


def _recipes() -> list[Files]:
    return [{**files, "set.json": json.dumps(["optim.lr=0.1"]).encode()} for files in settings.ALL[1].seeds()]


_SCORE = ("--gt", "@/gt/gt.json", "--results", "@/results/results.json", "--output", "@/report.json")

ALL = (
    Target(
        name="job-mine",
        seeds=_media,
        run=_job("mine_proposals", *_MINE),
        about=(EMPTY, "--config", "out"),
        rename=0.4,
        share=8,
        most_cpu_s=120,
        torch=True,
    ),
    Target(
        name="job-mine-again",
        seeds=_mined,
        run=_job("mine_proposals", *_MINE),
        mutated=("out/plan/*", "out/config.json", "out/receipts/*", "out/listing/*", "out/manifest/*"),
        about=("out",),
        share=8,
        most_cpu_s=120,
        torch=True,
    ),
    Target(
        name="job-inspect",
        seeds=datasets.ALL[0].seeds,
        run=_job("inspect_shards", "@/data", "--verify", "--stats"),
        about=("data",),
        share=30,
        torch=True,
    ),
    Target(
        name="job-contact-sheet",
        seeds=datasets.ALL[0].seeds,
        run=_job("inspect_shards", "@/data", "--html", "@/sheet.html", "--sidecar", "brightness"),
        about=("data", "brightness"),
        share=20,
        torch=True,
    ),
    Target(
        name="job-evaluate",
        seeds=tracks.ALL[1].seeds,
        run=_job("evaluate", "--benchmark", "tao", "--workers", "1", *_SCORE),
        share=30,
    ),
    Target(name="job-track", seeds=_frames, run=_track, about=("v", "out of memory"), share=6, torch=True),
    Target(
        name="job-train-config",
        seeds=_recipes,
        run=_job("train", "--print-config", "--recipe", "@/mine.toml"),
        share=20,
        torch=True,
    ),
    Target(
        name="job-sidecar",
        seeds=datasets.ALL[0].seeds,
        run=_job(
            *("make_sidecar", "@/data", "other", "--producer", "tests.sidecars.producers:Brightness"),
            *("--executor", "inline"),
        ),
        about=("data", "other", "named above"),
        share=20,
        torch=True,
    ),
)
