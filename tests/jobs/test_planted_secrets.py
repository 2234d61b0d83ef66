"""Secrets are planted wherever jobs get texts from, and every byte that jobs leave is searched for them."""

from __future__ import annotations

import io
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.jobs.test_over_http import INLINE, SMALL
from tests.make_dataset import make_dataset
from tests.make_media import make_mot, make_pictures
from tests.runs import rows
from tests.storage.folder_server import FolderServer, serving_folder
from tests.storage.test_scrubbing import BASE64, HEX, SENTENCES, SHAPES, drawn
from tests.tracking.make_tracking import write_frames, write_mot_detections
from trackmill.jobs import convert, evaluate, export, inspect_shards, mine_proposals, track, train
from trackmill.models.masa.model import Masa
from trackmill.models.masa.variants import VARIANTS
from trackmill.pipeline.sources.images import Images
from trackmill.pipeline.storage.secrets import signed_urls

pytest.importorskip("aiohttp", reason='needs pip install -e ".[http]"')
SIGNATURE = "5ec4e7" + drawn(58, HEX)
VARIABLES = {
    "AWS_SECRET_ACCESS_KEY": drawn(40, BASE64, seed=1),
    "WANDB_API_KEY": drawn(40, HEX, seed=2),
    "MLFLOW_TRACKING_PASSWORD": "correct horse 77",
    "AZURE_STORAGE_CONNECTION_STRING": f"AccountName=me;AccountKey={drawn(86, BASE64, seed=3)}==",
    "MY_PASSPHRASE": 'with "quotes" \\ and é',
    "SERVICE_TOKEN": drawn(24, seed=4),
}
FSSPEC = {"key": drawn(20, seed=5), "client_kwargs": {"secret": drawn(30, seed=6)}}
PLANTED = [*VARIABLES.values(), FSSPEC["key"], FSSPEC["client_kwargs"]["secret"], SIGNATURE]  # type: ignore[index]


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FSSPEC_S3", json.dumps(FSSPEC))
    monkeypatch.setattr(signed_urls, "_queries", {})
    monkeypatch.setattr(signed_urls, "_for_all", set())
    monkeypatch.setenv("TRACKMILL_CACHE", str(tmp_path / "left" / "cache"))
    (tmp_path / "left" / "temporary").mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "left" / "temporary"))
    return tmp_path / "left"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FolderServer]:
    from safetensors.torch import save_file

    root = tmp_path / "served"
    make_mot(root / "mot")
    gt = (root / "mot" / "MOT17-99-TEST" / "gt" / "gt.txt").read_text().splitlines()
    (root / "results").mkdir()
    tracks = [",".join([*line.split(",")[:6], "1", "-1", "-1", "-1"]) for line in gt]
    (root / "results" / "MOT17-99-TEST.txt").write_text("\n".join(tracks) + "\n")
    for name in ("mot", "results"):
        shutil.make_archive(str(root / name), "zip", root / name)
    write_frames(root / "seq" / "img1", 3)
    write_mot_detections(root / "det.txt", 3)
    save_file(Masa(VARIANTS["masa_lite0"]).state_dict(), root / "lite0.safetensors")
    with serving_folder(root) as running:
        running.signature = SIGNATURE
        yield running


def texts(path: Path) -> Iterator[bytes]:
    """A file's bytes, as they are and unpacked."""
    data = path.read_bytes()
    yield str(path).encode() + data
    if data[:4] == b"PAR1":
        table = pq.read_table(io.BytesIO(data))
        yield str(table.to_pylist()).encode() + str(table.schema.metadata).encode()


def check(left: Path, printed: str, words: list[str]) -> None:
    """No planted secret in what lies below a folder, or was printed."""
    assert len(printed) > 20
    shown = printed.encode()
    secrets = {form for word in words for form in (word, json.dumps(word)[1:-1], repr(word)[1:-1])}
    assert not [word for word in secrets if word.encode() in shown], printed
    for path in left.rglob("*"):
        if path.is_file():
            found = [word for text in texts(path) for word in secrets if word.encode() in text]
            assert not found, (path, found)


def test_mining_whose_errors_hold_secrets(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each item fails with the words of some client library; a bug leaves a file with its traceback."""
    cases = [text.format(secret) for text, secret in SENTENCES.values()] + [f"said {each}" for each in SHAPES.values()]
    cases += [f"said {value}" for value in VARIABLES.values()]
    # Short words stand elsewhere as well.
    words = [*PLANTED, *SHAPES.values(), *(secret for _, secret in SENTENCES.values() if len(secret) > 9)]
    make_pictures(tmp_path / "in", 1)
    (picture,) = (tmp_path / "in").iterdir()
    for number in range(len(cases)):
        shutil.copy(picture, tmp_path / "in" / f"x{number:03d}x.jpg")
    read: Any = Images.read

    def fail(self: Images, item: Any) -> Any:
        name = item.uri.rpartition("/")[2]
        if name.startswith("x"):
            raise ConnectionError(cases[int(name[1:4])])
        return read(self, item)

    monkeypatch.setattr(Images, "read", fail)
    output = str(planted / "out")
    command = ["--output", output, *INLINE, "--input", str(tmp_path / "in"), "--set", "run.isolate=false"]
    assert mine_proposals.main(command) == 0
    assert sum(row.status == "quarantined" for row in rows(planted / "out")) == len(cases)
    inspect_shards.main([output, "--html", str(planted / "sheet.html")])
    inspect_shards.main([output, "--verify"])

    def break_down(*args: Any) -> Any:
        raise KeyError("; ".join(cases))

    monkeypatch.setattr("trackmill.pipeline.mining.joining.prepare_mining", break_down)
    # Into another output: one that holds something refuses another licence before it breaks down.
    command[1] = str(planted / "another")
    assert mine_proposals.main([*command, "--set", "read.license=hf_" + drawn(34)]) == 1
    assert list((planted / "temporary").glob("trackmill-mine-*.log"))
    check(planted, "".join(capfd.readouterr()), words)


def test_signed_urls_in_every_job(
    planted: Path, server: FolderServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("albumentations", reason='needs pip install -e ".[train]"')
    make_dataset(str(tmp_path / "set"))
    weights = f"{server.url}/lite0.safetensors{server.query}"
    words = ["--recipe", "masa_lite0", "--data", str(tmp_path / "set"), "--output", str(planted / "run")]
    words += ["--launcher", "local", "--device", "cpu", "--max-steps", "1", "--set", f"model.weights={weights}"]
    for setting in ("data.batch_size=2", "data.workers=0", "views.size=64", "telemetry.every=1"):
        words += ["--set", setting]
    assert train.main(words) == 0
    assert train.main([*words, "--print-config"]) == 0
    assert export.main(["--run", str(planted / "run"), "--output", str(planted / "export")]) == 0
    assert convert.main(["--weights", weights, "--output", str(planted / "converted")]) == 0
    seen = ["--video", str(server.root / "seq"), "--detections", f"{server.url}/det.txt{server.query}"]
    assert track.main([*seen, *SMALL, "--weights", weights, "--output", str(planted / "tracks")]) == 0
    scored = ["--gt", f"{server.url}/mot.zip{server.query}", "--results", f"{server.url}/results.zip{server.query}"]
    reports = ["--output", str(planted / "report.json"), "--html", str(planted / "report.html")]
    assert evaluate.main(["--benchmark", "mot17", *scored, *reports]) == 0
    logging.getLogger("trackmill").warning("to be sure: %s", weights)
    check(planted, "".join(capfd.readouterr()), PLANTED)
    assert json.loads((planted / "run" / "config.json").read_bytes())["model"]["weights"] == weights.partition("?")[0]
