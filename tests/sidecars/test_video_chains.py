"""Chains at the native rate of a video: squares that move too far between stored frames, cross, and meet a cut."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import fsspec
import numpy as np
import pytest

from tests.runs import job_environment
from tests.s3_server import s3_server
from tests.sidecars.moving_squares import SIDE, Place, picture, squares_video
from trackmill.jobs import inspect_shards, mine_chains, mine_proposals
from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.shards.reader import open_dataset, read_row
from trackmill.pipeline.sidecars.about import find_sidecars
from trackmill.pipeline.sidecars.chains.settings import VideoChainSettings
from trackmill.pipeline.sidecars.chains.source_frames import indices_between
from trackmill.pipeline.sidecars.part import read_part
from trackmill.pipeline.sidecars.producers.video_chains import VideoChainProducer
from trackmill.pipeline.sidecars.run import make_sidecar
from trackmill.schemas.config import build
from trackmill.schemas.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
SQUARES = "tests.sidecars.moving_squares:Squares"
TWICE = "tests.sidecars.moving_squares:TwiceEach"
MOVING: dict[str, Place] = {"red": lambda t: (6 + 3 * t, 8), "green": lambda t: (126 - 3 * t, 36)}
"""Three pixels a frame: an IoU of .74 from one to the next, and of .25 from a stored one to the next, four later."""
QUICK = ["--executor", "inline", "--proposer", "graph", "--set", "graph.backend=skimage", "--set", "graph.scales=[300]"]


def mined(tmp_path: Path, video: Path, *words: str) -> str:
    """The root of a data set of one clip, every fourth frame of a video."""
    root = str(tmp_path / "set")
    command = ["--input", str(video), "--output", root, *QUICK, "--set", "run.isolate=false", *words]
    assert mine_proposals.main(command) == 0
    return root


def sample_of(root: str) -> Sample:
    dataset = open_dataset(root)
    return read_row(dataset, dataset.stored[0])


def settings_of(**settings: Any) -> VideoChainSettings:
    plain = {"detector": SQUARES, "cuts": "none", "source": {"isolate": False}} | settings
    config = VideoChainProducer.resolve(build(VideoChainSettings, plain, "test"))
    assert isinstance(config, VideoChainSettings)
    return config


def chains_of(root: str, **settings: Any) -> Any:
    """Rows of the one sample, with their counts."""
    return VideoChainProducer(settings_of(**settings)).rows(sample_of(root))


def by_label(rows: Any) -> dict[str, list[list[int]]]:
    """For each label the frames of each of its chains."""
    found: dict[str, dict[int, list[int]]] = {}
    for frame, chain, label in zip(rows["frame"].tolist(), rows["chain"].tolist(), rows["label"]):
        found.setdefault(label, {}).setdefault(chain, []).append(frame)
    return {label: list(chains.values()) for label, chains in found.items()}


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a video of 36 frames, and a data set of 9 of them. Tests that change the video copy both."""
    folder = tmp_path_factory.mktemp("moving")
    squares_video(folder / "raw" / "moving.mp4", 36, MOVING)
    mined(folder, folder / "raw")
    return folder


def test_linked_through_the_frames_in_between(moving: Path) -> None:
    rows = chains_of(str(moving / "set"))
    assert by_label(rows) == {"red": [list(range(9))], "green": [list(range(9))]}
    assert rows["links"].tolist()[:2] == [0, 0] and set(rows["links"].tolist()[2:]) == {4}
    assert rows["iou"][:2].tolist() == [0, 0] and rows["iou"][2:].min() > 0.6 and rows["iou"].max() < 0.85
    assert set(rows["source"]) == {"detections:Squares"} and set(rows["proposal"].tolist()) == {-1}
    assert rows.counts["clips linked at the native rate"] == 1 and rows.counts["frames in between"] == 4 * 8 - 8
    assert rows.counts["kept"] == 18 and rows.counts["chains"] == 2


def test_stored_frames_alone_are_too_far_apart_and_that_is_said(moving: Path) -> None:
    rows = chains_of(str(moving / "set"), native="never")
    assert len(rows["frame"]) == 0
    assert rows.counts["clips linked from stored frame to stored frame: as asked for"] == 1
    assert rows.counts["in chains that are too short"] == 18
    low = chains_of(str(moving / "set"), native="never", min_iou=0.2)
    assert by_label(low) == {"red": [list(range(9))], "green": [list(range(9))]}
    assert set(low["links"].tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("what", "count"),
    [
        ("gone", "gone"),
        ("other", "changed"),
        ("cut short", "cannot be read"),
        ("page", "cannot be read"),
    ],
)
def test_a_source_that_is_not_what_it_was(moving: Path, tmp_path: Path, what: str, count: str) -> None:
    shutil.copytree(moving / "raw", tmp_path / "raw")
    root = mined(tmp_path, tmp_path / "raw")
    video = tmp_path / "raw" / "moving.mp4"
    whole = video.read_bytes()
    if what == "gone":
        video.unlink()
    elif what == "other":
        squares_video(video, 36, {"red": lambda t: (60, 20)})
    else:
        video.write_bytes(whole[: len(whole) // 2] if what == "cut short" else b"<html>")
    rows = chains_of(root, min_iou=0.2)
    assert rows.counts[f"clips linked from stored frame to stored frame: source {count}"] == 1
    assert len(rows["frame"]) == 18
    outcome = make_sidecar(root, "strict", "video-chains", settings_of(native="required").model_dump(mode="json"))
    assert sum(result.num_quarantined for result in outcome.made) == 1 and "moving.mp4" in str(outcome.made)
    video.write_bytes(whole)
    assert chains_of(root).counts["clips linked at the native rate"] == 1


def test_a_source_that_moved(moving: Path, tmp_path: Path) -> None:
    shutil.copytree(moving / "raw", tmp_path / "raw")
    root = mined(tmp_path, tmp_path / "raw")
    os.rename(tmp_path / "raw", tmp_path / "elsewhere")
    moved = f"{tmp_path / 'raw'}={tmp_path / 'elsewhere'}"
    assert chains_of(root, source={"isolate": False, "moved": moved}).counts["clips linked at the native rate"] == 1
    with pytest.raises(InputError, match="should be OLD=NEW"):
        settings_of(source={"moved": "/elsewhere"})


def test_squares_that_cross_are_not_confused(tmp_path: Path) -> None:
    crossing: dict[str, Place] = {"green": lambda t: (120 - 3 * t, 20), "red": lambda t: (6 + 3 * t, 22)}
    root = mined(tmp_path, squares_video(tmp_path / "raw" / "crossing.mp4", 36, crossing))
    for detector in (SQUARES, TWICE):
        rows = chains_of(root, detector=detector)
        for chain in set(rows["chain"].tolist()):
            own = [label for label, one in zip(rows["label"], rows["chain"].tolist()) if one == chain]
            assert len(set(own)) == 1 and len(own) >= 2
        assert len(by_label(rows)["green"]) == 2, "behind the other one it is lost, and begins anew"


def test_a_second_box_of_an_object_would_end_its_chain(moving: Path) -> None:
    rows = chains_of(str(moving / "set"), detector=TWICE)
    assert by_label(rows) == {"red": [list(range(9))], "green": [list(range(9))]}
    assert rows.counts["duplicates"] == 18 and set(rows["score"].tolist()) == {np.float32(0.9)}
    assert len(chains_of(str(moving / "set"), detector=TWICE, nms_iou=1)["frame"]) == 0


@pytest.mark.parametrize("missing", [12, 14])  # a stored frame, and one in between
def test_a_missed_box_is_bridged_if_asked_for(tmp_path: Path, missing: int) -> None:
    places: dict[str, Place] = {"red": lambda t: None if t == missing else (6 + 2 * t, 8)}
    root = mined(tmp_path, squares_video(tmp_path / "raw" / "missed.mp4", 28, places))
    assert len(by_label(chains_of(root))["red"]) == 2
    rows = chains_of(root, bridge=1)
    stored = [frame for frame in range(7) if 4 * frame != missing]
    assert by_label(rows) == {"red": [stored]}
    assert not list(VideoChainProducer.wrong_rows(settings_of(bridge=1), _as_stored(rows), [None] * 7))


def test_no_chain_leads_over_a_cut(tmp_path: Path) -> None:
    still: dict[str, Place] = {"red": lambda t: (40, 20)}
    video = squares_video(tmp_path / "raw" / "cut.mp4", 32, still, backgrounds=lambda t: 40 if t < 18 else 200)
    root = mined(tmp_path, video)
    assert by_label(chains_of(root)) == {"red": [list(range(8))]}
    rows = chains_of(root, cuts="histogram")
    assert by_label(rows) == {"red": [[0, 1, 2, 3, 4], [5, 6, 7]]}
    assert rows["shot"].tolist() == [0] * 5 + [1] * 3 and rows.counts["cuts (histogram)"] == 1
    stored = chains_of(root, cuts="histogram", native="never")
    assert by_label(stored) == by_label(rows)
    assert stored.counts["clips whose cuts were sought in stored frames alone"] == 1
    boxes = chains_of(root, cuts="histogram", boxes="proposals", detector="ssdlite-person")
    assert max(boxes["shot"]) == 1 and all(
        len({s for s, c in zip(boxes["shot"].tolist(), boxes["chain"].tolist()) if c == chain}) == 1
        for chain in set(boxes["chain"].tolist())
    )


def test_a_variable_frame_rate_is_read_by_the_numbers_of_frames(tmp_path: Path) -> None:
    times = [t + 5 * (t > 9) + 11 * (t > 20) for t in range(36)]
    root = mined(
        tmp_path, squares_video(tmp_path / "raw" / "vfr.mp4", 36, MOVING, times=times), "--set", "read.label_fps=4"
    )
    rows = chains_of(root)
    assert rows.counts["clips linked at the native rate"] == 1
    assert {len(chain) for chains in by_label(rows).values() for chain in chains} == {
        len(sample_of(root).record.frames)
    }


def test_fewer_frames_are_enough_of_a_fast_video(moving: Path) -> None:
    rows = chains_of(str(moving / "set"), link_fps=12)
    assert rows.counts["frames in between"] == 8 and set(rows["links"].tolist()) == {0, 2}
    assert indices_between([0, 4, 5, 9], 30.0, 0) == [1, 2, 3, 6, 7, 8]
    assert indices_between([0, 4, 5, 9], 60.0, 24.9) == [2, 7] and indices_between([0, 4], None, 5) == [1, 2, 3]


@pytest.mark.parametrize("first", [0, 1, 37])
def test_frames_in_a_folder(tmp_path: Path, first: int) -> None:
    from PIL import Image

    folder = tmp_path / "JPEGImages" / "squares"
    folder.mkdir(parents=True)
    for number in range(20):
        Image.fromarray(picture(number, MOVING, 60)).save(folder / f"{number + first:05d}.jpg", quality=95)
    root = mined(tmp_path, tmp_path / "JPEGImages", "--source", "frames", "--set", "source_settings.fps=24")
    rows = chains_of(root)
    assert by_label(rows) == {"red": [list(range(5))], "green": [list(range(5))]}
    (folder / f"{6 + first:05d}.jpg").unlink()
    holes = chains_of(root, min_iou=0.4)
    assert by_label(holes) == by_label(rows) and holes.counts["clips with frames in between that cannot be read"] == 1
    (folder / f"{8 + first:05d}.jpg").write_bytes((folder / f"{9 + first:05d}.jpg").read_bytes())
    counts = chains_of(root).counts
    assert counts["clips linked from stored frame to stored frame: source changed"] == 1


def test_another_sidecar_gives_the_boxes(moving: Path, tmp_path: Path) -> None:
    root = str(tmp_path / "set")
    shutil.copytree(moving / "set", root)
    own = {"cuts": "none", "source": {"isolate": False}, "min_iou": 0.2}
    with pytest.raises(InputError, match="has no sidecar 'squares', which chains is to be made from"):
        make_sidecar(root, "chains", "video-chains", {"boxes": "squares", **own})
    make_sidecar(root, "squares", "detections", {"detector": SQUARES})
    outcome = make_sidecar(root, "chains", "video-chains", {"boxes": "squares", **own})
    assert outcome.counts["kept"] == 18
    assert outcome.counts["clips linked from stored frame to stored frame: boxes of these alone"] == 1
    sidecar = find_sidecars(open_dataset(root).layout)["chains"]  # type: ignore[arg-type]
    assert list(sidecar.about.parts["reads"]) == ["squares"]
    part = read_part(f"{sidecar.folder}/part-00000000.parquet", "chains", sidecar.about.columns)
    assert set(part.table["source"].to_pylist()) == {"sidecar:squares"}
    Path(root, "sidecars", "squares", "part-00000000.parquet").unlink()
    Path(root, "sidecars", "chains", "part-00000000.parquet").unlink()
    again = make_sidecar(root, "chains", "video-chains", {"boxes": "squares", **own})
    assert "part-00000000.parquet: is missing: finish the sidecar squares first" in again.failed[0].failed


def test_masks_of_proposals(moving: Path) -> None:
    root = str(moving / "set")
    own = {"boxes": "proposals", "detector": "ssdlite-person", "min_score": 0, "native": "never"}
    boxes, masks = (chains_of(root, overlap=overlap, **own) for overlap in ("box", "mask"))
    assert len(masks["frame"]) > 0 and masks["iou"].tolist() != boxes["iou"].tolist()
    sample = sample_of(root)
    for rows in (boxes, masks):
        for frame, proposal, box in zip(rows["frame"], rows["proposal"], rows["box"]):
            assert np.allclose(sample.record.frames[frame].proposals.boxes[proposal], box)
        assert set(rows["source"]) == {"proposals"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"boxes": "proposals", "native": "required"}, "only a detector finds boxes in frames between"),
        ({"overlap": "mask"}, "overlap=mask needs boxes=proposals"),
        ({"boxes": "proposals", "weights": "x.pth"}, "weights is a detector's, and boxes=proposals asks for none"),
        ({"cuts": "sometimes"}, "cuts"),
        ({"detector": "sdlite-person"}, "did you mean 'ssdlite-person'"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        settings_of(**settings)


def test_what_is_wrong_with_rows_is_found(moving: Path) -> None:
    config, rows = settings_of(), _as_stored(chains_of(str(moving / "set")))
    assert not list(VideoChainProducer.wrong_rows(config, rows, [None] * 9))

    def wrong(**changes: Any) -> str:
        return "; ".join(VideoChainProducer.wrong_rows(config, {**rows, **changes}, [None] * 9))

    def changed(column: str, row: int, value: float) -> Any:
        values = rows[column].copy()
        values[row] = value
        return values

    assert "occurs twice in frame 0" in wrong(chain=changed("chain", 1, 0))
    assert "leads from shot 0 into shot 1" in wrong(shot=changed("shot", 6, 1))
    assert "misses more frames behind" in wrong(frame=changed("frame", 17, 12))
    assert "iou 0.1 of chain" in wrong(iou=changed("iou", 7, 0.1)) and "iou 1.5" in wrong(iou=changed("iou", 7, 1.5))
    assert "has 0 links" in wrong(links=changed("links", 7, 0))
    assert "below 0.3" in wrong(score=changed("score", 7, 0.2))
    assert "not numbered from 0" in wrong(chain=rows["chain"] + 1)


def test_the_command(moving: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the same pass and later the same bytes, read in a child process; then nothing is left to do but to measure."""
    shutil.copytree(moving / "raw", tmp_path / "raw")
    root = mined(tmp_path, tmp_path / "raw", "--chains", SQUARES, "--set", "sidecars.chains.cuts=histogram")
    part = Path(root, "sidecars", "chains", "part-00000000.parquet")
    assert "counted for chains: 18 kept, 2 chains, 1 clips, 1 clips linked at the native" in capsys.readouterr().out
    in_one_pass = part.read_bytes()
    part.unlink()
    truth = tmp_path / "truth" / "moving" / "gt" / "gt.txt"
    truth.parent.mkdir(parents=True)
    rows = []
    for number, place in enumerate(MOVING.values(), start=1):
        corners = [place(t) or (0, 0) for t in range(36)]
        rows += [f"{t + 1},{number},{x},{y},{SIDE},{SIDE},1,-1,-1,-1" for t, (x, y) in enumerate(corners)]
    truth.write_text("\n".join(rows))
    command = ["--data", root, "--detector", SQUARES, "--cuts", "histogram", "--executor", "inline"]
    assert mine_chains.main([*command, "--truth", str(tmp_path / "nowhere")]) == 2
    assert "nowhere: no such file or folder" in capsys.readouterr().err and not part.exists()
    capsys.readouterr()
    assert (
        mine_chains.main([*command, "--truth", str(tmp_path / "truth"), "--output", str(tmp_path / "purity.json")]) == 0
    )
    out = capsys.readouterr().out
    assert part.read_bytes() == in_one_pass
    assert "1 clips linked at the native rate" in out and "links: 1.000 of 16 keep one object" in out
    purity = json.loads((tmp_path / "purity.json").read_text())
    assert purity["runs"]["5"] == {"pure": 10, "mixed": 0, "unmatched": 0, "purity": 1.0} and purity["recall"] == 1
    assert mine_chains.main(command) == 0 and "nothing was left to do" in capsys.readouterr().out
    assert mine_chains.main([*command, "--purity"]) == 2
    assert "no clip has objects that are known" in capsys.readouterr().err
    assert mine_chains.main([*command, "--margin", "0.3"]) == 2
    assert "settings.margin" in capsys.readouterr().err
    assert inspect_shards.main([root, "--verify"]) == 0


def test_annotated_clips_say_how_pure_their_chains_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.make_media import make_mot

    make_mot(tmp_path / "raw" / "SEQ")
    root = mined(tmp_path, tmp_path / "raw", "--source", "mot", "--proposer", "annotations")
    capsys.readouterr()
    command = ["--data", root, "--boxes", "proposals", "--cuts", "none", "--executor", "inline"]
    assert mine_chains.main(command) == 0
    assert "keep one object" in capsys.readouterr().out
    assert mine_chains.main([*command, "--purity"]) == 0 and "links: 1.000" in capsys.readouterr().out


def _as_stored(rows: Any) -> dict[str, Any]:
    return {name: np.asarray(values) for name, values in rows.items()}


def test_frames_in_between_that_are_damaged(tmp_path: Path) -> None:
    """The video was so when it was mined: what lies between two stored frames is linked as far as it can be read."""
    slow: dict[str, Place] = {"red": lambda t: (6 + t, 8)}
    video = squares_video(tmp_path / "raw" / "damaged.mp4", 24, slow, gop=4)
    with av.open(str(video)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    place, size = packets[6].pos, packets[6].size
    data = bytearray(video.read_bytes())
    data[place + 4 : place + size] = bytes(size - 4)
    video.write_bytes(data)
    root = mined(tmp_path, video)
    rows = chains_of(root)
    assert by_label(rows) == {"red": [list(range(6))]}
    assert rows.counts["clips with frames in between that cannot be read"] == 1
    assert rows["links"].tolist() == [0, 4, 2, 4, 4, 4], "frames 6 and 7 are lost with it"


def test_a_sidecar_of_the_older_producer_is_told_apart(moving: Path, tmp_path: Path) -> None:
    root = str(tmp_path / "set")
    shutil.copytree(moving / "set", root)
    make_sidecar(root, "chains")
    assert make_sidecar(root, "chains").made == [], "and goes on as before"
    with pytest.raises(InputError, match="was made by the producer 'chains', and 'video-chains' makes other rows"):
        make_sidecar(root, "chains", "video-chains", {"detector": SQUARES, "cuts": "none"})


def test_mining_cannot_make_what_needs_another_sidecar(moving: Path, tmp_path: Path) -> None:
    words = ["--sidecar", "chains=video-chains", "--set", "sidecars.chains.boxes=squares"]
    command = ["--input", str(moving / "raw"), "--output", str(tmp_path / "set"), *QUICK, *words]
    assert mine_proposals.main(command) == 2


@pytest.mark.parametrize("limit", ["item_timeout_s", "item_memory_bytes"])
def test_a_source_that_takes_too_much_is_quarantined(moving: Path, tmp_path: Path, limit: str) -> None:
    root = str(tmp_path / "set")
    shutil.copytree(moving / "set", root)
    source = {limit: 1e-4 if limit == "item_timeout_s" else 1}
    own = {"detector": SQUARES, "cuts": "none", "source": source}
    outcome = make_sidecar(root, "chains", "video-chains", own)
    ((_, _, reason),) = outcome.made[0].quarantined
    assert f"source.{limit}" in reason and "moving.mp4" in reason


def test_in_a_bucket(moving: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Video, shards and sidecar in S3, the video read in a child process as mining does."""
    with s3_server() as (host, port):
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTNOTREAL00000")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-this-test")
        store = fsspec.filesystem("s3")
        store.mkdir("bucket")
        store.put(str(moving / "raw" / "moving.mp4"), "bucket/raw/moving.mp4")
        assert mine_proposals.main(["--input", "s3://bucket/raw", "--output", "s3://bucket/set", *QUICK]) == 0
        words = ["--detector", SQUARES, "--cuts", "none", "--native", "required", "--executor", "inline"]
        assert mine_chains.main(["--data", "s3://bucket/set", *words]) == 0
        assert store.exists("bucket/set/sidecars/chains/part-00000000.parquet")


@pytest.mark.slow  # that Ray makes what this process makes: test_job.py
@pytest.mark.ray
def test_on_ray(moving: Path, tmp_path: Path) -> None:
    parts = []
    for executor in ("inline", "ray"):
        root = tmp_path / executor
        shutil.copytree(moving / "set", root)
        words = ["--data", str(root), "--detector", SQUARES, "--cuts", "none", "--executor", executor, "--workers", "1"]
        command = [sys.executable, str(ROOT / "jobs" / "mine_chains.py"), *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=540, env=job_environment())
        assert done.returncode == 0, done.stderr
        parts.append((root / "sidecars" / "chains" / "part-00000000.parquet").read_bytes())
    assert parts[0] == parts[1]


def test_numbers_with_gaps_have_no_frames_in_between(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "JPEGImages" / "squares"
    folder.mkdir(parents=True)
    for number in range(0, 60, 10):
        Image.fromarray(picture(number // 4, MOVING, 60)).save(folder / f"{number:05d}.jpg", quality=95)
    root = mined(tmp_path, tmp_path / "JPEGImages", "--source", "frames", "--set", "source_settings.fps=60")
    rows = chains_of(root, min_iou=0.2)
    assert rows.counts["clips linked from stored frame to stored frame: no frame in between can be read"] == 1
    assert by_label(rows) == {"red": [list(range(6))], "green": [list(range(6))]}
    assert "clips linked at the native rate" not in rows.counts


def test_detections_of_files_need_no_pixels(moving: Path, tmp_path: Path) -> None:
    shutil.copytree(moving / "raw", tmp_path / "raw")
    root = mined(tmp_path, tmp_path / "raw")
    (tmp_path / "raw" / "moving.mp4").unlink()
    rows = [f"{t + 1},-1,{6 + 3 * t},8,{SIDE},{SIDE},0.9,-1,-1,-1" for t in range(36)]
    (tmp_path / "det").mkdir()
    (tmp_path / "det" / "moving.txt").write_text("\n".join(rows))
    for cuts in ("none", "histogram"):
        found = chains_of(root, detector=f"file:{tmp_path / 'det'}", cuts=cuts)
        assert found["frame"].tolist() == list(range(9)) and set(found["links"].tolist()) == {0, 4}
        assert found.counts["clips linked at the native rate"] == 1
        assert found.counts.get("clips whose cuts were sought in stored frames alone", 0) == (cuts != "none")
