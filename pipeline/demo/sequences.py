"""The demonstration's sequences on disk, laid out like MOTChallenge: img1/, det/det.txt, gt/gt.txt, seqinfo.ini."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trackmill.pipeline.demo.camera import FPS, HEIGHT, WIDTH, camera_path, enlarged, take
from trackmill.pipeline.demo.objects import DemoDetections, Truth, detect, find_objects, truth
from trackmill.pipeline.demo.people import people
from trackmill.pipeline.media.videos import VideoReader
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import open_for_seeking, read_bytes
from trackmill.pipeline.storage.publish import publish_bytes, remove
from trackmill.pipeline.storage.urls import join
from trackmill.schemas.errors import InputError

VIDEO_STRIDE = 2
_JPEG_QUALITY = 92
_MAX_PIXELS, _ANY_SIDE = 100_000_000, 1 << 30


def write_camera_sequence(photograph: str, folder: str, frames: int, seed: int) -> int:
    """A photograph, seen by a moving camera, as a sequence with exact boxes and imperfect detections.

    Args:
        photograph: URL of the picture.
        folder: URL of the sequence; its last part is the sequence's name and, with `seed`, decides the randomness.
        frames: length.
        seed: another one gives another way and other detections.

    Returns:
        The number of objects.

    Raises:
        ValueError: no region of the photograph can pass for an object.
        OSError: could not be read or written.
    """
    picture = enlarged(Image.open(io.BytesIO(read_bytes(photograph))))
    objects = find_objects(np.asarray(picture))
    rng = np.random.default_rng([seed, zlib.crc32(folder.rstrip("/").rsplit("/", 1)[-1].encode())])
    remove(join(folder, "img1"))  # a longer sequence may have been there
    path = camera_path(picture.width, picture.height, frames, rng)
    rows = truth(objects, path)
    if not rows:
        raise InputError(f"{redact(photograph)}: no region in it can pass for an object; take another photograph")
    for number, pose in enumerate(path, start=1):
        _write_picture(folder, number, take(picture, pose))
    publish_bytes(join(folder, "gt", "gt.txt"), _truth_text(rows))
    publish_bytes(join(folder, "det", "det.txt"), _detection_text(detect(rows, frames, rng)))
    _write_seqinfo(folder, frames, FPS, WIDTH, HEIGHT)
    return len({row.identity for row in rows})


def write_video_sequence(video: str, folder: str, frames: int) -> int:
    """Every second frame of the packaged video, and who can be seen in them; whoever tracks has to find the people.

    Args:
        video: URL of the packaged video that `trackmill.pipeline.demo.people` describes.
        folder: URL of the sequence; its last part is the sequence's name.
        frames: length.

    Returns:
        The number of frames; less than asked for where the video is shorter.

    Raises:
        BadItem: the video cannot be decoded.
        OSError: could not be read or written.
    """
    remove(join(folder, "img1"))  # a longer sequence may have been there
    number, height, width = 0, 0, 0
    with open_for_seeking(video) as handle:
        reader = VideoReader(handle, redact(video), max_pixels=_MAX_PIXELS, longest_side=_ANY_SIDE)
        try:
            fps = (reader.fps or FPS) / VIDEO_STRIDE
            for frame in reader.read(range(0, min(reader.num_frames, frames * VIDEO_STRIDE), VIDEO_STRIDE)):
                number += 1
                height, width = frame.image.shape[:2]
                _write_picture(folder, number, frame.image)
        finally:
            reader.close()
    publish_bytes(join(folder, "gt", "gt.txt"), _truth_text(people(number, VIDEO_STRIDE)))
    _write_seqinfo(folder, number, fps, width, height)
    return number


def _write_picture(folder: str, number: int, image: NDArray[np.uint8]) -> None:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=_JPEG_QUALITY)
    publish_bytes(join(folder, "img1", f"{number:06d}.jpg"), out.getvalue())


def _truth_text(rows: Sequence[Truth]) -> bytes:
    """`frame, id, left, top, width, height, flag, class, visibility`."""
    lines = [
        f"{row.frame + 1},{row.identity},{_xywh(*row.box)},1,1,{row.visible:.3f}\n"
        for row in sorted(rows, key=lambda row: (row.identity, row.frame))
    ]
    return "".join(lines).encode()


def _detection_text(found: DemoDetections) -> bytes:
    """`frame, -1, left, top, width, height, confidence, -1, -1, -1`."""
    rows = zip(found.frames.tolist(), found.boxes.tolist(), found.scores.tolist(), strict=True)
    return "".join(f"{frame + 1},-1,{_xywh(*box)},{score:.4f},-1,-1,-1\n" for frame, box, score in rows).encode()


def _xywh(x0: float, y0: float, x1: float, y1: float) -> str:
    return f"{x0:.3f},{y0:.3f},{x1 - x0:.3f},{y1 - y0:.3f}"


def _write_seqinfo(folder: str, frames: int, fps: float, width: int, height: int) -> None:
    name = folder.rstrip("/").rsplit("/", 1)[-1]
    lines = [
        "[Sequence]",
        f"name={name}",
        "imDir=img1",
        f"frameRate={fps:g}",
        f"seqLength={frames}",
        f"imWidth={width}",
        f"imHeight={height}",
        "imExt=.jpg",
    ]
    publish_bytes(join(folder, "seqinfo.ini"), "\n".join([*lines, ""]).encode())
