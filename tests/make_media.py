"""Small pictures, videos and data sets for tests, drawn by code: moving ellipses over a textured background.

Every maker takes a `pathlib.Path` and returns what it wrote. The same arguments give the same content.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trackmill.schemas.masks import format_counts, mask_runs

EXIF_ORIENTATION = 0x0112


def make_scene(
    height: int, width: int, seed: int = 0, step: int = 0, count: int = 3
) -> tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]:
    """An RGB image (H, W, 3) with `count` coloured ellipses, and their (H, W) masks; they move with `step`."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    base = 60 + 40 * np.sin(rows / 7.0 + seed) + 40 * np.cos(columns / 9.0)
    image = np.stack([base, np.roll(base, 5, axis=1), base * 0.5 + 30], axis=2)
    masks = []
    for _ in range(count):
        centre_y, centre_x = rng.uniform(0.2, 0.8) * height, rng.uniform(0.2, 0.8) * width
        radius_y, radius_x = rng.uniform(0.1, 0.2) * height, rng.uniform(0.1, 0.2) * width
        centre_y = (centre_y + rng.uniform(-1, 1) * step) % height
        centre_x = (centre_x + rng.uniform(-1, 1) * step) % width
        mask = ((rows - centre_y) / radius_y) ** 2 + ((columns - centre_x) / radius_x) ** 2 <= 1
        image[mask] = rng.uniform(90, 255, 3)
        masks.append(mask)
    return np.clip(image, 0, 255).astype(np.uint8), masks


def coco_rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """COCO compressed RLE of an (H, W) mask."""
    return {"size": list(mask.shape), "counts": format_counts(mask_runs(mask))}


def box_xywh(mask: NDArray[np.bool_]) -> list[float]:
    """Tight box `x, y, width, height` of a mask; zeros for an empty one."""
    if not mask.any():
        return [0.0, 0.0, 0.0, 0.0]
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    return [float(x), float(y), float(columns[-1] + 1 - x), float(rows[-1] + 1 - y)]


def jpeg_bytes(image: NDArray[np.uint8], quality: int = 90, orientation: int = 0, mode: str = "RGB") -> bytes:
    """JPEG of an RGB array; `orientation` 1..8 writes that EXIF tag."""
    out = io.BytesIO()
    options: dict[str, Any] = {"quality": quality}
    if orientation:
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = orientation
        options["exif"] = exif.tobytes()
    Image.fromarray(image).convert(mode).save(out, "JPEG", **options)
    return out.getvalue()


def make_jpeg(
    path: Path, height: int = 48, width: int = 64, seed: int = 0, quality: int = 90, orientation: int = 0
) -> Path:
    """One JPEG of a scene."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg_bytes(make_scene(height, width, seed)[0], quality, orientation))
    return path


def make_pictures(folder: Path, count: int = 4, height: int = 48, width: int = 64) -> list[Path]:
    """`picture_0.jpg`, `picture_1.jpg`, ... of different scenes."""
    return [make_jpeg(folder / f"picture_{i}.jpg", height, width, seed=i) for i in range(count)]


def make_video(
    path: Path,
    num_frames: int = 24,
    fps: Fraction | int = 24,
    size: tuple[int, int] = (64, 96),
    gop: int = 8,
    bframes: int = 2,
    *,
    open_gop: bool = False,
    codec: str = "libx264",
    times: Sequence[int] | None = None,
    rotation: int = 0,
    seed: int = 0,
    quality: int = 23,
    faststart: bool = False,
    detail: int = 1,
) -> Path:
    """A video of moving ellipses; no two frames look the same.

    Args:
        path: its suffix chooses the container.
        num_frames: length.
        fps: frame rate, also the unit of `times`.
        size: (height, width).
        gop: frames from one keyframe to the next.
        bframes: most B-frames in a row.
        open_gop: let B-frames before a keyframe refer to the group before it (H.264 only).
        codec: encoder.
        times: presentation time of each frame in units of 1/fps, for a variable frame rate.
        rotation: degrees of the display matrix, a multiple of 90.
        seed: which scene.
        quality: constant rate factor; higher is smaller and worse.
        faststart: put the index of an MP4 before its data, so that a file cut short can still be opened.
        detail: the scene is drawn smaller by this factor and enlarged, for large frames in little time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = size
    options = {"movflags": "+faststart"} if faststart else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.gop_size = gop
        if codec == "libx264":
            groups = f"keyint={gop}:min-keyint={gop}:scenecut=0:open-gop={int(open_gop)}"
            stream.options = {
                "preset": "veryfast",
                "crf": str(quality),
                "x264-params": f"{groups}:bframes={bframes}:b-adapt=0",
            }
        else:
            stream.codec_context.max_b_frames = bframes
        stream.codec_context.time_base = 1 / Fraction(fps)
        if rotation:
            stream.set_display_rotation(rotation)
        for i in range(num_frames):
            image, _ = make_scene(height // detail, width // detail, seed, step=i)
            image = image.repeat(detail, axis=0).repeat(detail, axis=1)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = times[i] if times is not None else i
            frame.time_base = 1 / Fraction(fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def sa1b_document(number: int, masks: Sequence[NDArray[np.bool_]]) -> dict[str, Any]:
    """The JSON of one SA-1B picture, as the Segment Anything repository describes it."""
    height, width = masks[0].shape
    annotations = []
    for position, mask in enumerate(masks):
        x, y, w, h = box_xywh(mask)
        annotations.append(
            {
                "id": number * 1000 + position,
                "segmentation": coco_rle(mask),
                "bbox": [x, y, w, h],
                "area": int(mask.sum()),
                "predicted_iou": 0.9 + position / 100,
                "stability_score": 0.97,
                "crop_box": [0, 0, width, height],
                "point_coords": [[x + w / 2, y + h / 2]],
            }
        )
    image = {"image_id": number, "width": width, "height": height, "file_name": f"sa_{number}.jpg"}
    return {"image": image, "annotations": annotations}


def make_sa1b_folder(folder: Path, count: int = 3, height: int = 48, width: int = 64, first: int = 1) -> list[Path]:
    """`sa_N.jpg` with `sa_N.json`; returns the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for number in range(first, first + count):
        image, masks = make_scene(height, width, seed=number)
        path = folder / f"sa_{number}.jpg"
        path.write_bytes(jpeg_bytes(image))
        path.with_suffix(".json").write_text(json.dumps(sa1b_document(number, masks)))
        pictures.append(path)
    return pictures


def make_sa1b_tar(
    path: Path, count: int = 3, height: int = 48, width: int = 64, first: int = 1, prefix: str = "./"
) -> Path:
    """A tar of `sa_N.jpg`, `sa_N.json` pairs, named by the caller like the official `sa_000000.tar`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for number in range(first, first + count):
            image, masks = make_scene(height, width, seed=number)
            add_member(tar, f"{prefix}sa_{number}.jpg", jpeg_bytes(image))
            add_member(tar, f"{prefix}sa_{number}.json", json.dumps(sa1b_document(number, masks)).encode())
    return path


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Append one file to an open tar."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def make_sav_train(
    folder: Path,
    name: str = "sav_000001",
    num_frames: int = 41,
    size: tuple[int, int] = (64, 96),
    *,
    num_manual: int = 2,
    num_automatic: int = 1,
) -> Path:
    """SA-V training layout: `X.mp4` at 24 fps, `X_manual.json` and `X_auto.json` at 6 fps; returns the video.

    The first manual object is invisible (area 0) in the second annotated frame.
    """
    video = make_video(folder / f"{name}.mp4", num_frames, 24, size)
    annotated = range(0, num_frames, 4)
    scenes = [make_scene(*size, seed=0, step=i, count=num_manual + num_automatic)[1] for i in annotated]
    groups = {"manual": range(num_manual), "auto": range(num_manual, num_manual + num_automatic)}
    for kind, objects in groups.items():
        if not objects:
            continue
        masklet = [[coco_rle(masks[o]) for o in objects] for masks in scenes]
        if kind == "manual" and len(masklet) > 1:
            masklet[1][0] = coco_rle(np.zeros(size, bool))
        count = len(objects)
        scores: list[Any] = [None] * count if kind == "manual" else [[0.95] * count for _ in masklet]
        document = {
            "video_id": name,
            "video_duration": num_frames / 24,
            "video_frame_count": float(num_frames),
            "video_height": float(size[0]),
            "video_width": float(size[1]),
            "video_resolution": float(size[0] * size[1]),
            "video_environment": "Indoor",
            "video_split": "train",
            "masklet": masklet,
            "masklet_id": list(range(count)),
            "masklet_type": [kind] * count,
            "masklet_stability_score": scores,
            "masklet_num": count,
        }
        (folder / f"{name}_{kind}.json").write_text(json.dumps(document))
    return video


def make_sav_val(
    folder: Path, name: str = "sav_000777", num_frames: int = 21, size: tuple[int, int] = (48, 64), count: int = 2
) -> Path:
    """SA-V validation layout; the second object has no mask from the third annotated frame on. Returns the frames."""
    frames = folder / "JPEGImages_24fps" / name
    frames.mkdir(parents=True, exist_ok=True)
    for i in range(num_frames):
        image, masks = make_scene(*size, seed=5, step=i, count=count)
        (frames / f"{i:05d}.jpg").write_bytes(jpeg_bytes(image))
        if i % 4:
            continue
        for number, mask in enumerate(masks):
            if number == 1 and i >= 8:
                continue
            target = folder / "Annotations_6fps" / name / f"{number:03d}" / f"{i:05d}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask.astype(np.uint8) * 255).save(target)
    return frames


def make_mot(
    folder: Path,
    name: str = "MOT17-99-TEST",
    num_frames: int = 6,
    size: tuple[int, int] = (48, 64),
    fps: int = 30,
    *,
    with_gt: bool = True,
    seqinfo: bool = True,
    columns: int = 9,
) -> Path:
    """A MOTChallenge sequence; returns its folder.

    With nine columns (MOT17) the third object is a distractor (flag 0, class 8); with ten (MOT15) its flag is 0.
    """
    sequence = folder / name
    (sequence / "img1").mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(num_frames):
        image, masks = make_scene(*size, seed=9, step=i)
        (sequence / "img1" / f"{i + 1:06d}.jpg").write_bytes(jpeg_bytes(image))
        for number, mask in enumerate(masks, start=1):
            x, y, w, h = box_xywh(mask)
            flag, category = (0, 8) if number == 3 else (1, 1)
            tail = f"{category},1.0" if columns == 9 else "-4.1,2.5,0"
            rows.append(f"{i + 1},{number},{x},{y},{w},{h},{flag},{tail}")
    if with_gt:
        (sequence / "gt").mkdir(exist_ok=True)
        (sequence / "gt" / "gt.txt").write_text("\n".join(rows) + "\n")
    if seqinfo:
        (sequence / "seqinfo.ini").write_text(
            f"[Sequence]\nname={name}\nimDir=img1\nframeRate={fps}\nseqLength=600\n"
            f"imWidth={size[1]}\nimHeight={size[0]}\nimExt=.jpg\n"
        )
    return sequence


def crowdhuman_line(name: str, people: Sequence[Sequence[float]], ignored: Sequence[Sequence[float]] = ()) -> str:
    """One line of an odgt file, as the publishers write it: full boxes `xywh`, of which the inner half is visible."""

    def row(box: Sequence[float], tag: str, **extra: int) -> dict[str, Any]:
        x, y, w, h = box
        visible = [x + w / 4, y + h / 4, w / 2, h / 2]
        head = {"hbox": [x, y, w / 4, h / 8], "head_attr": {"ignore": 0, "occ": 0, "unsure": 0}}
        return {"tag": tag, "fbox": list(box), "vbox": visible, "extra": extra, **head}

    rows = [row(box, "person", box_id=number, occ=1) for number, box in enumerate(people)]
    rows += [row(box, "mask" if number % 2 else "person", ignore=1) for number, box in enumerate(ignored)]
    return json.dumps({"ID": name, "gtboxes": rows})


def make_crowdhuman(folder: Path, count: int = 3, split: str = "val", height: int = 48, width: int = 64) -> list[Path]:
    """`annotation_val.odgt` and `Images/`, as the zips unpack; returns the pictures. A person leaves each picture."""
    people = [[5, 6, 20, 30], [-10, 10, 30, 60]]
    pictures, lines = [], []
    for number in range(count):
        name = f"{number}73271,1a0d6{split}"
        path = folder / "Images" / f"{name}.jpg"
        make_jpeg(path, height, width, seed=number)
        pictures.append(path)
        lines.append(crowdhuman_line(name, people, [[40, 0, 20, 20], [50, 30, 10, 10]]))
    (folder / f"annotation_{split}.odgt").write_text("\n".join(lines) + "\n")
    return pictures


def coco_document(count: int, height: int, width: int, name: str = "{:012d}.jpg") -> dict[str, Any]:
    """What `instances_*.json` holds: an object with each form of mask, one without, and a crowd in each picture."""
    _, masks = make_scene(height, width, seed=1)
    images, annotations = [], []
    for number in range(count):
        images.append({"id": 100 + number, "file_name": name.format(number), "height": height, "width": width})
        images[-1]["license"] = 4
        x, y, w, h = box_xywh(masks[0])
        packed = coco_rle(masks[0])
        runs = {"size": [height, width], "counts": [height * 4, height * 3, height * (width - 7)]}
        corners = [4.0, 4.0, 20.0, 4.0, 20.0, 20.0, 4.0, 20.0]
        shapes: list[tuple[list[float], Any, int, int]] = [
            ([x, y, w, h], packed, 0, 1),
            ([4, 4, 16, 16], [corners], 0, 1),
            ([4, 0, 3, height], runs, 0, 2),
            ([30.5, 10.25, 8, 9], [], 0, 2),
            ([40, 0, 20, 20], {"size": [height, width], "counts": [height * width]}, 1, 1),
        ]
        for place, (box, segmentation, crowd, category) in enumerate(shapes):
            own = {"id": 1000 * (number + 1) + place, "image_id": 100 + number, "category_id": category}
            annotations.append({"segmentation": segmentation, "area": box[2] * box[3], "bbox": box, **own})
            annotations[-1]["iscrowd"] = crowd
    categories = [{"id": 1, "name": "person", "supercategory": "person"}, {"id": 2, "name": "bicycle"}]
    return {
        "info": {"year": 2017},
        "licenses": [{"id": 4, "name": "Attribution License"}],
        "images": images,
        "annotations": annotations[::-1],  # in no order of pictures
        "categories": categories,
    }


def make_coco(folder: Path, count: int = 3, height: int = 48, width: int = 64) -> list[Path]:
    """`annotations/instances_val2017.json` and `val2017/`, as published; returns the pictures."""
    document = coco_document(count, height, width)
    pictures = [folder / "val2017" / image["file_name"] for image in document["images"]]
    for number, path in enumerate(pictures):
        make_jpeg(path, height, width, seed=number)
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / "annotations" / "instances_val2017.json").write_text(json.dumps(document, ensure_ascii=False))
    return pictures


def make_labels(path: Path, labels: NDArray[Any], mode: str = "P") -> Path:
    """A PNG whose pixels are numbers of objects: with a palette, or gray where `mode` is L."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(labels.astype(np.uint8))
    if mode == "P":
        picture.putpalette(np.random.default_rng(0).bytes(768))
    picture.save(path)
    return path


def make_davis(
    root: Path, num_frames: int = 6, labelled: Sequence[int] | None = None, size: tuple[int, int] = (48, 64)
) -> list[NDArray[np.uint8]]:
    """A sequence `bear` in DAVIS's layout, of scene 3; returns the numbers of every frame's pixels, objects 1 and 2.

    Args:
        root: gets `JPEGImages/` and `Annotations/`.
        num_frames: length.
        labelled: frames that get a mask; all if None.
        size: (height, width).
    """
    frames = root / "JPEGImages" / "480p" / "bear"
    frames.mkdir(parents=True, exist_ok=True)
    truth = []
    for i in range(num_frames):
        (frames / f"{i:05d}.jpg").write_bytes(jpeg_bytes(make_scene(*size, seed=3, step=i)[0]))
        labels = np.zeros(size, np.uint8)
        labels[5:15, 3 + i : 20 + i] = 1
        labels[30:40, 10:30] = 2
        truth.append(labels)
        if labelled is None or i in labelled:
            make_labels(root / "Annotations" / "480p" / "bear" / f"{i:05d}.png", labels)
    return truth


def pack_tar(path: Path, folder: Path, *, mode: str = "w") -> Path:
    """All files below a folder as a tar, sorted by name; `mode` as of `tarfile.open`."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                add_member(tar, file.relative_to(folder).as_posix(), file.read_bytes())
    return path
