"""Every job once with one file and once with a folder over HTTP, and what is said when a server fails."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import trackmill.models.masa
from tests.make_dataset import make_dataset
from tests.make_media import make_mot, make_pictures, make_sa1b_folder, make_sa1b_tar, make_video
from tests.runs import rows
from tests.storage.folder_server import MOVED, FolderServer, serving_folder
from tests.tracking.make_tracking import write_frames, write_mot_detections
from trackmill.jobs import convert, evaluate, export, inspect_shards, make_sidecar, mine_proposals, track, train
from trackmill.models.masa.model import Masa
from trackmill.models.masa.variants import VARIANTS
from trackmill.pipeline.storage import retries

pytest.importorskip("aiohttp")
INLINE = ("--executor", "inline")
SMALL = ("--model", "masa_lite0", "--set", "size.long_side=64", "--device", "cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that is served."""
    from safetensors.torch import save_file

    root = tmp_path_factory.mktemp("served")
    make_pictures(root / "pictures", 3)
    make_sa1b_folder(root / "sa1b", 2)
    make_sa1b_tar(root / "tars" / "sa_000000.tar", first=100)
    (root / "videos").mkdir()
    make_video(root / "videos" / "clip.mp4", 12)
    make_mot(root / "mot")
    (root / "results").mkdir()
    gt = (root / "mot" / "MOT17-99-TEST" / "gt" / "gt.txt").read_text().splitlines()
    tracks = [",".join([*line.split(",")[:6], "1", "-1", "-1", "-1"]) for line in gt]
    (root / "results" / "MOT17-99-TEST.txt").write_text("\n".join(tracks) + "\n")
    make_dataset(str(root / "set"))
    write_frames(root / "seq" / "img1", 5)
    write_mot_detections(root / "seq" / "det" / "det.txt", 5)
    (root / "weights").mkdir()
    save_file(Masa(VARIANTS["masa_lite0"]).state_dict(), root / "weights" / "lite0.safetensors")
    return root


@pytest.fixture
def server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FolderServer]:
    monkeypatch.setattr(retries, "pause", lambda seconds: None)
    with serving_folder(folder) as running:
        yield running


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKMILL_CACHE", str(tmp_path / "cache"))


def mine(output: Path, *words: str, expect: int = 0) -> int:
    assert mine_proposals.main(["--output", str(output), *INLINE, "--input", *words]) == expect
    return sum(row.status == "ok" for row in rows(output)) if expect in (0, 3) else 0


@pytest.mark.parametrize(
    ("path", "items"),
    [
        ("pictures/picture_1.jpg", 1),
        ("pictures", 3),
        ("pictures/", 3),
        ("sa1b", 2),
        ("tars/sa_000000.tar", 3),
        ("videos/clip.mp4", 1),
        ("mot", 1),
    ],
)
def test_mining(server: FolderServer, tmp_path: Path, path: str, items: int) -> None:
    assert mine(tmp_path / "out", f"{server.url}/{path}") == items
    asked = sum(server.asked.values())
    assert mine(tmp_path / "out", f"{server.url}/{path}") == items
    assert sum(server.asked.values()) - asked < asked, "what is mined is not fetched again"


def test_mining_through_redirects_and_after_failures(server: FolderServer, tmp_path: Path) -> None:
    server.fail_once = True
    assert mine(tmp_path / "a", f"{server.url}/pictures", f"{server.url}/videos/clip.mp4") == 4
    server.fail_once = False
    assert mine(tmp_path / "b", f"{server.url}{MOVED}/pictures/picture_1.jpg") == 1


def test_a_slow_server_is_waited_for(server: FolderServer, tmp_path: Path) -> None:
    server.pause_s = 0.3
    assert mine(tmp_path / "out", f"{server.url}/pictures/picture_1.jpg") == 1


def test_what_is_not_there_or_refused_is_a_sentence(
    server: FolderServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine(tmp_path / "a", f"{server.url}/nowhere", expect=2)
    assert "/nowhere: there is no such file or folder" in capsys.readouterr().err
    server.refuse = {"/pictures/picture_0.jpg", "/sa1b/"}
    assert mine(tmp_path / "b", f"{server.url}/pictures") == 2
    assert "picture_0.jpg: the server refuses (HTTP 403)" in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}"
        mine(tmp_path / "c", f"{closed}/pictures", expect=4)
    error = capsys.readouterr().err
    assert f"{closed}/pictures: gave up after 5 attempts" in error


def test_looking_at_shards(server: FolderServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect_shards.main([f"{server.url}/set", "--verify"]) == 0
    assert "OK: " in capsys.readouterr().out
    assert inspect_shards.main([f"{server.url}/set/shards/part-00000000.tar"]) == 0
    assert inspect_shards.main([f"{server.url}/set", "--html", str(tmp_path / "sheet.html")]) == 0
    assert inspect_shards.main([f"{server.url}/gone"]) == 2
    assert "no data set here" in capsys.readouterr().err


def test_a_sidecar_cannot_be_written_to_a_web_server(server: FolderServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_sidecar.main([f"{server.url}/set", "chains", *INLINE]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert "/set/sidecars/chains: cannot be written to, a web server only hands out" in error


@pytest.mark.parametrize(
    ("video", "detections"),
    [("videos/clip.mp4", "seq/det/det.txt"), ("seq", "seq/det/det.txt"), ("seq/img1", "seq/det/det.txt")],
)
def test_tracking(server: FolderServer, tmp_path: Path, video: str, detections: str) -> None:
    words = ["--video", f"{server.url}/{video}", "--detections", f"{server.url}/{detections}"]
    weights = ("--weights", f"{server.url}/weights/lite0.safetensors")
    assert track.main([*words, *SMALL, *weights, "--output", str(tmp_path / "out")]) == 0
    (tracks,) = (tmp_path / "out").iterdir()
    assert tracks.read_text().count("\n") == 15


def test_evaluation(server: FolderServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--benchmark", "mot17", "--gt", f"{server.url}/mot", "--results", f"{server.url}/results"]
    assert evaluate.main(words) == 0
    assert "100.0" in capsys.readouterr().out
    shutil.make_archive(str(server.root / "results-zip"), "zip", server.root / "results")
    assert evaluate.main([*words[:-1], f"{server.url}/results-zip.zip"]) == 0
    assert evaluate.main([*words[:-1], f"{server.url}/gone"]) == 2
    assert "/gone" in capsys.readouterr().err


def test_training(server: FolderServer, tmp_path: Path) -> None:
    pytest.importorskip("albumentations")
    words = ["--recipe", "masa_lite0", "--data", f"{server.url}/set", "--output", str(tmp_path / "run")]
    words += ["--launcher", "local", "--device", "cpu", "--max-steps", "1"]
    for setting in ("data.batch_size=2", "data.workers=0", "views.size=64", "telemetry.tensorboard=false"):
        words += ["--set", setting]
    assert train.main([*words, "--set", f"model.weights={server.url}/weights/lite0.safetensors"]) == 0
    assert (tmp_path / "run" / "final" / "model.safetensors").exists()


def test_exporting_and_converting(server: FolderServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"{server.url}/weights/lite0.safetensors"
    for job in (export, convert):
        assert job.main(["--weights", url, "--output", str(tmp_path / job.__name__)]) == 0
        found = trackmill.models.masa.load("masa_lite0", tmp_path / job.__name__ / "masa_lite0.safetensors")
        assert found.variant.name == "masa_lite0"
        assert job.main(["--weights", f"{server.url}/weights/gone.pth", "--output", str(tmp_path / "x")]) == 2
        assert "gone.pth: no such file (HTTP 404)" in capsys.readouterr().err


def test_a_finished_sidecar_on_a_web_server_is_left_as_it_is(
    server: FolderServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make_sidecar.main([str(server.root / "set"), "own", "--producer", "chains", *INLINE]) == 0
    assert make_sidecar.main([f"{server.url}/set", "own", "--producer", "chains", "--part", "1/2"]) == 0
    assert "nothing was left to do" in capsys.readouterr().out
