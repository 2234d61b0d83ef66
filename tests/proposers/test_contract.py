"""What every proposer must do, whatever it finds; a new proposer is one more row in `MAKERS`."""

from __future__ import annotations

import copy
import importlib.util
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from tests.proposers.scenes import noise, plain, sam_proposer, scene
from trackmill.models.proposers import AnnotationProposer, GraphProposer, GraphSettings, Proposer
from trackmill.models.proposers.base import MAX_REFUSED_SHOWN
from trackmill.models.registry import PROPOSERS, proposer_class
from trackmill.schemas.masks import mask_area, mask_box, paste_mask
from trackmill.schemas.media import Frame, ProposalSet

MAKERS: dict[str, Callable[[], Proposer]] = {
    "graph-skimage": lambda: GraphProposer(GraphSettings(backend="skimage")),
    "graph-opencv": lambda: GraphProposer(GraphSettings(backend="opencv")),
    "annotations": AnnotationProposer,
    "sam": sam_proposer,
    "sam-crops": lambda: sam_proposer(crop_n_layers=1),
    "sam-no-gates": lambda: sam_proposer(pred_iou_thresh=0, stability_score_thresh=0, min_mask_region_area=0),
}
NEEDS = {"graph-opencv": "cv2", "sam": "segment_anything"}

FRAMES = {
    "scene": scene(),
    "noise": noise(90, 70),
    "plain": plain(64, 64),
    "one pixel": noise(1, 1),
    "two by two": noise(2, 2),
    "one row": noise(1, 300),
    "one column": noise(300, 1),
    "wide": noise(3, 1500),  # a row and a half once shrunk to 512
}


@pytest.fixture(scope="module", params=MAKERS)
def proposer(request: pytest.FixtureRequest) -> Proposer:
    package = next((NEEDS[name] for name in NEEDS if request.param.startswith(name)), None)
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    return MAKERS[request.param]()


def same(a: ProposalSet, b: ProposalSet) -> bool:
    """Whether two sets agree in everything, to the bit."""
    return (
        a.boxes.tobytes() == b.boxes.tobytes()
        and a.scores.tobytes() == b.scores.tobytes()
        and a.masks == b.masks
        and a.refused == b.refused
        and a.refused_boxes.tobytes() == b.refused_boxes.tobytes()
        and a.refused_reasons == b.refused_reasons
    )


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_proposals_are_well_formed(proposer: Proposer, frame: Frame) -> None:
    (found,) = proposer.propose([frame])
    height, width = frame.image.shape[:2]
    number = len(found.boxes)

    assert found.boxes.shape == (number, 4) and found.boxes.dtype == np.float32
    assert found.scores.shape == (number,) and found.scores.dtype == np.float32
    assert len(found.masks) == number
    assert (found.boxes[:, :2] >= 0).all() and (found.boxes[:, 2:] <= (width, height)).all()
    assert (found.boxes[:, 2:] - found.boxes[:, :2] >= 1).all()
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    for box, mask in zip(found.boxes, found.masks):
        assert mask is not None and mask_box(mask) == tuple(box)
        assert paste_mask(mask, height, width).sum() == mask_area(mask) > 0
    if not found.from_objects:
        assert (np.diff(found.scores) <= 0).all()


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_refusals_are_well_formed(proposer: Proposer, frame: Frame) -> None:
    (found,) = proposer.propose([frame])
    height, width = frame.image.shape[:2]

    assert all(type(count) is int and count > 0 for count in found.refused.values())
    assert len(found.refused_boxes) == len(found.refused_reasons) <= MAX_REFUSED_SHOWN
    assert found.refused_boxes.shape[1:] == (4,) and found.refused_boxes.dtype == np.float32
    assert set(found.refused_reasons) <= set(found.refused)
    assert (found.refused_boxes >= 0).all() and (found.refused_boxes[:, 2:] <= (width, height)).all()
    for reason, count in found.refused.items():
        assert found.refused_reasons.count(reason) <= count


def test_a_frame_gives_the_same_alone_again_and_in_a_batch(proposer: Proposer) -> None:
    frames = list(FRAMES.values())
    batch = proposer.propose(frames)
    backwards = proposer.propose(frames[::-1])[::-1]
    for frame, first, second in zip(frames, batch, backwards):
        assert same(first, second)
        assert same(first, proposer.propose([frame])[0])


def test_the_input_is_left_alone(proposer: Proposer) -> None:
    frame = scene()
    before = copy.deepcopy(frame)
    (found,) = proposer.propose([frame])
    found.boxes += 1  # nor may the result share memory with the frame
    found.masks.append(None)
    assert (frame.image == before.image).all()
    assert frame.annotations is not None and before.annotations is not None
    assert (frame.annotations.boxes == before.annotations.boxes).all()
    assert frame.annotations.masks == before.annotations.masks


def test_read_only_and_strided_pixels_are_fine(proposer: Proposer) -> None:
    frame = scene()
    doubled = np.repeat(frame.image, 2, axis=1)
    view = doubled[:, ::2]
    view.flags.writeable = False
    strided = Frame(image=view, annotations=frame.annotations)
    assert same(proposer.propose([strided])[0], proposer.propose([frame])[0])


def test_no_frames_give_no_sets(proposer: Proposer) -> None:
    assert proposer.propose([]) == []


def test_names_agree_with_the_table() -> None:
    for name in PROPOSERS:
        proposer = proposer_class(name)
        assert proposer.name == name and proposer.version >= 1
        proposer.Config()  # a section of the run file may be left out


def test_annotations_hands_on_the_objects_in_their_order() -> None:
    frame = scene()
    (found,) = AnnotationProposer().propose([frame])
    assert AnnotationProposer.needs_annotations and found.from_objects
    assert frame.annotations is not None
    assert (found.boxes == frame.annotations.boxes).all() and found.masks == frame.annotations.masks
    assert found.scores.tolist() == frame.annotations.scores

    (nothing,) = AnnotationProposer().propose([Frame(image=frame.image)])
    assert len(nothing.boxes) == 0 and nothing.from_objects


def test_importing_the_table_imports_no_heavy_package() -> None:
    heavy = ("torch", "torchvision", "cv2", "segment_anything", "skimage", "scipy")
    code = (
        "import sys; from trackmill.models.registry import PROPOSERS; import trackmill.pipeline.mining.proposer;"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
