"""MOTChallenge sequences: the files decide what the frames are, the columns what is an object and what is ignored."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.make_media import make_jpeg, make_mot
from tests.sources.claiming import claim_all
from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.sources import open_source
from trackmill.pipeline.sources.base import ReadSettings

SETTINGS = ReadSettings(frames_per_clip=4, label_fps=30)


def read_all(folder: Path, settings: ReadSettings = SETTINGS):
    items, _, _ = claim_all([str(folder)], "auto", settings)
    assert {item.source for item in items} == {"mot"}
    source = open_source("mot", settings)
    return [source.read(item) for item in items]


def write_truth(folder: Path, text: str) -> Path:
    """A sequence whose `gt.txt` holds just `text`."""
    sequence = make_mot(folder, num_frames=2)
    (sequence / "gt" / "gt.txt").write_text(text)
    return folder


@pytest.mark.parametrize("columns", [9, 10])
def test_objects_and_ignored_regions(tmp_path, columns):
    make_mot(tmp_path, num_frames=6, columns=columns)
    clips = read_all(tmp_path)
    assert [[frame.index for frame in clip.frames] for clip in clips] == [[0, 1, 2], [3, 4, 5]]
    for clip in clips:
        assert clip.annotated and clip.fps == 30 and clip.license == "unknown" and clip.num_source_frames == 6
        for frame in clip.frames:
            assert frame.annotations.ids == [1, 2] and len(frame.annotations.ignore) == 1


@pytest.mark.parametrize(
    ("row", "objects", "ignored"),
    [
        ("1,1,10,10,5,5,1,1,0.3", 1, 0),  # MOT17 pedestrian
        ("1,1,10,10,5,5,1,2,0.3", 0, 1),  # MOT17 person on a vehicle
        ("1,1,10,10,5,5,0,1,0.3", 0, 1),  # flag 0
        ("1,1,10,10,5,5,1,-1,-1,-1", 1, 0),  # MOT15 without world coordinates
        ("1,1,10,10,5,5,1,8.0,2.5,0", 1, 0),  # MOT15: column 8 is a coordinate, not class 8
        ("1,1,10,10,5,5,1,-1,-1", 1, 0),  # nine columns without a class
        ("1,1,10,10,5,5,1", 1, 0),  # seven columns
        ("1, 0, 10, 10, 5, 5, 1, 1, 1", 1, 0),  # SportsMOT: blanks, ids from 0
        ("1,1,-20,-20,15,15,1,1,1", 0, 0),  # outside the picture
    ],
)
def test_kinds_of_rows(tmp_path, row, objects, ignored):
    annotations = read_all(write_truth(tmp_path, row + "\n\n"))[0].frames[0].annotations
    assert (len(annotations.ids), len(annotations.ignore)) == (objects, ignored)


def test_boxes_are_used_as_they_are_and_cut_at_the_border(tmp_path):
    write_truth(tmp_path, "1,1,60,40,10.5,20,1,1,1\n1,2,1,1,3,4,1,1,1\n")
    annotations = read_all(tmp_path)[0].frames[0].annotations
    assert annotations.boxes.tolist() == [[60, 40, 64, 48], [1, 1, 4, 5]]
    assert annotations.masks == [None, None] and annotations.scores == [1.0, 1.0]


def test_frame_without_rows_has_no_objects(tmp_path):
    media = read_all(write_truth(tmp_path, "1,1,1,1,3,4,1,1,1\n"))[0]
    assert media.frames[1].annotations.ids == [] and media.annotated


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ("1,2,3", "line 2: 3 columns"),
        ("1,2,a,4,5,6,1", "line 2: not all columns are numbers"),
        ("1,2,nan,4,5,6,1", "line 2: a column is not finite"),
        ("1.5,2,3,4,5,6,1", "line 2: frame should be a whole number"),
        ("1,9,3,4,-5,6,1", "line 2: the box has a negative"),
        ("1,1,3,4,5,6,1", "line 2: id 1 stands twice in frame 1"),
    ],
)
def test_bad_line_is_named(tmp_path, row, text):
    with pytest.raises(BadItem, match=rf"gt\.txt: {text}"):
        read_all(write_truth(tmp_path, f"1,1,1,1,3,4,1,1,1\n{row}\n"))


def test_without_ground_truth(tmp_path):
    make_mot(tmp_path, with_gt=False)
    media = read_all(tmp_path)[0]
    assert not media.annotated and media.frames[0].annotations is None


def test_rate_and_stride(tmp_path):
    """With labels every frame is kept; without, as many a second as of any video."""
    make_mot(tmp_path / "labelled", num_frames=12, fps=12)
    make_mot(tmp_path / "bare", num_frames=12, fps=12, with_gt=False)
    make_mot(tmp_path / "unknown rate", num_frames=12, seqinfo=False, with_gt=False)
    settings = ReadSettings(frames_per_clip=12, label_fps=6)
    assert [f.index for f in read_all(tmp_path / "labelled", settings)[0].frames] == list(range(12))
    assert [f.index for f in read_all(tmp_path / "bare", settings)[0].frames] == [0, 2, 4, 6, 8, 10]
    media = read_all(tmp_path / "unknown rate", settings)[0]
    assert media.fps == 30 and [f.index for f in media.frames] == [0, 5, 10]


def test_first_frame_that_is_not_number_one_keeps_its_rows(tmp_path):
    sequence = make_mot(tmp_path, num_frames=6)
    for number in (1, 2):
        (sequence / "img1" / f"{number:06d}.jpg").unlink()
    (sequence / "gt" / "gt.txt").write_text("3,7,1,1,3,4,1,1,1\n")
    frame = read_all(tmp_path)[0].frames[0]
    assert frame.index == 0 and frame.annotations.ids == [7]


@pytest.mark.parametrize("first", [0, 100])
def test_pictures_from_another_number_get_the_rows_of_their_place(tmp_path, first, caplog):
    """As OpenCV loops, CVAT and KITTI number them: the boxes of a published sequence stay on their pictures."""
    wanted = [frame.annotations for media in read_all(make_mot(tmp_path / "a").parent) for frame in media.frames]
    pictures = make_mot(tmp_path / "b") / "img1"
    for path in sorted(pictures.iterdir(), reverse=first > 0):
        path.rename(pictures / f"{int(path.stem) - 1 + first:06d}.jpg")
    found = [frame.annotations for media in read_all(tmp_path / "b") for frame in media.frames]
    assert len(found) == len(wanted) == 6
    for one, other in zip(found, wanted):
        assert one.ids == other.ids and one.boxes.tolist() == other.boxes.tolist() and len(one.ids)
    assert f"pictures are numbered from {first}, rows from 1" in caplog.text


def test_rows_of_other_frames_are_an_error(tmp_path):
    sequence = make_mot(tmp_path)
    for path in sorted((sequence / "img1").iterdir(), reverse=True):
        path.rename(path.with_name(f"{int(path.stem) + 99:06d}.jpg"))
    (sequence / "gt" / "gt.txt").write_text("50,7,1,1,3,4,1,1,1\n")
    with pytest.raises(BadItem, match="pictures are numbered 100 to 105 and rows say frames 50 to 50: neither"):
        read_all(tmp_path)


def test_image_folder_of_another_name(tmp_path):
    sequence = make_mot(tmp_path, num_frames=2)
    (sequence / "img1").rename(sequence / "frames")
    info = sequence / "seqinfo.ini"
    info.write_text(info.read_text().replace("imDir=img1", "imDir=frames"))
    assert len(read_all(tmp_path)[0].frames) == 2


def test_bad_seqinfo_is_named(tmp_path):
    sequence = make_mot(tmp_path, num_frames=2)
    (sequence / "seqinfo.ini").write_text("[Sequence]\nframeRate=often\n")
    with pytest.raises(BadItem, match=r"seqinfo\.ini cannot be used"):
        read_all(tmp_path)


def test_frames_of_two_sizes_are_refused(tmp_path):
    sequence = make_mot(tmp_path, num_frames=2)
    make_jpeg(sequence / "img1" / "000002.jpg", 40, 40)
    with pytest.raises(BadItem, match=r"000002\.jpg: is 40 x 40"):
        read_all(tmp_path)


@pytest.mark.parametrize("stated", ["img1\\", ".\\img1", '"img1"', " img1/ ", "IMG1", "elsewhere"])
def test_image_folder_as_windows_and_people_write_it(tmp_path, stated, caplog):
    sequence = make_mot(tmp_path, num_frames=2)
    info = sequence / "seqinfo.ini"
    info.write_text(info.read_text().replace("imDir=img1", f"imDir={stated}"))
    assert [frame.annotations.ids for frame in read_all(tmp_path)[0].frames] == [[1, 2], [1, 2]]
    assert ("those in img1/ are read" in caplog.text) == (stated in ("IMG1", "elsewhere"))


@pytest.mark.parametrize(
    ("layout", "digits", "row"),
    [
        ("MOT20/train/MOT20-01", 6, "1,1,10,10,5,5,1,1,0.83"),
        ("dancetrack/train1/dancetrack0001", 8, "1,0,10,10,5,5,1,1,1"),  # identities count from 0
        ("sportsmot/dataset/val/v_00HRwkvvjtQ_c001", 6, "1, 3, 10, 10, 5, 5, 1, 1, 1"),
    ],
)
def test_layouts_of_other_data_sets(tmp_path, layout, digits, row):
    made = make_mot(tmp_path / "made", num_frames=2)
    (made / "gt" / "gt.txt").write_text(f"{row}\n{'2' + row[1:]}\n")
    for picture in sorted((made / "img1").iterdir()):
        picture.rename(picture.with_name(f"{int(picture.stem):0{digits}d}.jpg"))
    sequence = tmp_path / layout
    sequence.parent.mkdir(parents=True)
    made.rename(sequence)
    (media,) = read_all(tmp_path)
    identity = int(row.split(",")[1])
    assert [frame.annotations.ids for frame in media.frames] == [[identity]] * 2
