"""Names that live as long as a data set: what two clips of one video share, and who is tracked in it."""

from __future__ import annotations

import pytest

from trackmill.schemas.keys import identity_key, video_of


@pytest.mark.parametrize(
    ("source_id", "video"),
    [
        ("data/MOT17-02/img1#c000", "data/MOT17-02/img1"),
        ("data/MOT17-02/img1#c1234", "data/MOT17-02/img1"),  # more than a thousand clips
        ("a.tar#sav_1.mp4#c002", "a.tar#sav_1.mp4"),  # a video inside a tar
        ("data/a#c01.mp4#c000", "data/a#c01.mp4"),  # a name that looks like a clip's
        ("folder/left_*.png#c001", "folder/left_*.png"),  # one of two sequences of a folder
    ],
)
def test_clips_of_one_video_share_its_name(source_id, video):
    assert video_of(source_id) == video


def test_an_identity_has_one_number_for_ever():
    assert identity_key("mot", "data/MOT17-02/img1", 7) == 4650255390778978257, "stored in checkpoints: never change it"
    others = [("mot", "a", 1), ("mot", "a", 11), ("mot", "a1", 1), ("mota", "", 1), ("mot", "a", -1), ("mo", "ta", 1)]
    keys = [identity_key(*each) for each in others]
    assert len(set(keys)) == len(keys) and all(0 <= key < 1 << 63 for key in keys)
    assert identity_key("mot", "\udcff", 1) >= 0  # a name of a file that is no UTF-8
