"""Ground truth and results of every benchmark, and what a tracker is given: detections and embeddings in files."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from tests.evaluation.make_scalabel import make_scalabel
from tests.evaluation.make_tao import make_files, make_videos
from tests.evaluation.make_track_files import mot_videos, write_mot
from tests.evaluation.test_youtubevis import make_vis
from tests.fuzz.target import Files, Target, files_of
from trackmill.schemas.masks import format_counts, mask_runs


@cache
def _mot() -> tuple[Files, ...]:
    made = []
    for style in ("mot15", "mot17", "sportsmot"):
        with TemporaryDirectory() as folder:
            write_mot(Path(folder), mot_videos(style, count=1, num_frames=6, num_objects=3), style)
            made.append(files_of(Path(folder)))
    return tuple(made)


def _mot_zipped() -> list[Files]:
    """Results in a zip, ground truth in a folder, as evaluation servers want them."""
    made = []
    for files in _mot()[1:2]:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                if name.startswith("results/"):
                    archive.writestr(zipfile.ZipInfo(Path(name).name), data, zipfile.ZIP_DEFLATED)
        kept = {name: data for name, data in files.items() if not name.startswith("results/")}
        made.append({**kept, "results.zip": out.getvalue()})
    return made


@cache
def _tao() -> list[Files]:
    truth, results = make_files(make_videos(0, num_videos=1, num_frames=4, num_objects=3))
    return [{"gt/gt.json": orjson.dumps(truth), "results/results.json": orjson.dumps(results)}]


@cache
def _bdd() -> list[Files]:
    made = []
    for masks in (False, True):
        gt, results = make_scalabel(0, num_videos=1, num_frames=3, num_objects=4, masks=masks)
        made.append({"gt/gt.json": json.dumps(gt).encode(), "results/results.json": json.dumps(results).encode()})
    return made


@cache
def _vis() -> list[Files]:
    gt, results = make_vis(num_videos=2, num_frames=3, num_objects=3)
    packed = gzip.compress(json.dumps(results).encode(), mtime=0)
    return [{"gt/gt.json": json.dumps(gt).encode(), "results/results.json.gz": packed}]


def _evaluates(benchmark: str, gt: str, results: str, **options: Any) -> Callable[[Path], object]:
    def run(folder: Path) -> object:
        from trackmill.pipeline.evaluation.api import evaluate

        report = evaluate(folder / gt, folder / results, benchmark, workers=1, **options)
        return {"metrics": report.metrics, "sequences": report.sequences, "classes": report.classes}

    return run


def _read_mot(folder: Path) -> object:
    split = next((path for path in (folder / "gt").glob("*") if path.name != "seqmaps"), folder / "gt")
    style = split.name.partition("-")[0].lower()
    results = "results.zip" if (folder / "results.zip").exists() else "results"
    return _evaluates(style if style != "gt" else "mot17", f"gt/{split.name}", results)(folder)


@cache
def _detections() -> list[Files]:
    mask = np.zeros((24, 32), bool)
    mask[3:9, 4:20] = True
    counts = format_counts(mask_runs(mask))
    numbers = np.repeat(np.arange(3), 2)
    columns: dict[str, Any] = {
        "frame": numbers,
        "x0": np.array([1.0, 2, 3, 4, 5, 6]),
        "y0": np.zeros(6) + 2,
        "x1": np.zeros(6) + 20,
        "y1": np.zeros(6) + 12.5,
        "score": np.linspace(0.4, 0.9, 6),
        "name": ["cat", "dog"] * 3,
        "mask": [counts, None] * 3,
        "height": [24] * 6,
        "width": [32] * 6,
    }
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, write_page_checksum=True)
    text = "\n".join(f"{n + 1},-1,{x},2,10,9,0.8,1" for n, x in zip(numbers, columns["x0"]))
    images = [{"id": 7 + i, "video_id": 1, "file_name": f"v/{i}.jpg", "frame_index": i} for i in range(3)]
    rows = [
        {"image_id": 7 + int(n), "category_id": 2, "bbox": [1, 2, 9, 9], "score": 0.5, "segmentation": segmentation}
        for n, segmentation in zip(numbers, [{"size": [24, 32], "counts": counts}, None] * 3)
    ]
    coco = {
        "images": images,
        "videos": [{"id": 1, "name": "v"}],
        "categories": [{"id": 2, "name": "cat"}],
        "annotations": rows,
    }
    return [
        {"detections.parquet": out.getvalue()},
        {"detections.txt": text.encode()},
        {"detections.json": json.dumps(coco).encode()},
    ]


def _read_detections(folder: Path) -> object:
    from trackmill.pipeline.tracking.detection_files import read_detections

    (path,) = folder.iterdir()
    detector = read_detections(str(path), "v", {})
    return detector.detect([np.zeros((24, 32, 3), np.uint8)] * 3)


@cache
def _embeddings() -> list[Files]:
    rng = np.random.default_rng(0)
    columns = {
        "sequence": ["a"] * 4,
        "frame": np.array([1, 1, 2, 2], np.int64),
        "id": np.array([1, 2, 1, 2], np.int64),
        "embedding": rng.normal(size=(4, 3)).astype(np.float32),
    }
    return _embedding_files(columns)


def _read_embeddings(folder: Path) -> object:
    from trackmill.pipeline.evaluation.association.embedding_files import EmbeddingFile
    from trackmill.pipeline.evaluation.association.sequences import BoxSequence

    (path,) = folder.iterdir()
    boxes = BoxSequence(
        name="a",
        frames=np.array([1, 1, 2, 2]),
        ids=np.array([1, 2, 1, 2]),
        boxes=np.zeros((4, 4)),
    )
    return EmbeddingFile(str(path)).vectors(boxes)


def _embedding_files(columns: dict[str, Any]) -> list[Files]:
    packed, plain, table = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.savez(packed, **columns)
    kind = [("sequence", "U1"), ("frame", "<i8"), ("id", "<i8"), ("embedding", "<f4", (3,))]
    rows = np.zeros(4, kind)
    for name, values in columns.items():
        rows[name] = values
    np.save(plain, rows)
    nested = pa.array(columns["embedding"].tolist(), pa.list_(pa.float32()))
    pq.write_table(pa.table({**columns, "embedding": nested}), table, write_page_checksum=True)
    return [
        {"vectors.npz": packed.getvalue()},
        {"vectors.npy": plain.getvalue()},
        {"vectors.parquet": table.getvalue()},
    ]


ALL = (
    Target(name="mot-evaluation", seeds=lambda: [*_mot(), *_mot_zipped()], run=_read_mot, share=80),
    Target(name="tao", seeds=_tao, run=_evaluates("tao", "gt/gt.json", "results/results.json"), share=60),
    Target(name="bdd", seeds=_bdd, run=_evaluates("bdd100k-mot", "gt/gt.json", "results/results.json"), share=60),
    Target(
        name="bdd-masks",
        seeds=lambda: _bdd()[1:],
        run=_evaluates("bdd100k-mots", "gt/gt.json", "results/results.json"),
        share=30,
    ),
    Target(
        name="youtube-vis",
        seeds=_vis,
        run=_evaluates("youtubevis", "gt/gt.json", "results/results.json.gz"),
        share=80,
    ),
    Target(name="embeddings", seeds=_embeddings, run=_read_embeddings, share=80),
    Target(name="detections", seeds=_detections, run=_read_detections, share=150),
)
