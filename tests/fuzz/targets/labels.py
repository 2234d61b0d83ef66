"""Annotations that mining reads beside pictures and videos."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.target import Files, Target, files_of
from tests.fuzz.targets.media import EMPTY, read_all
from tests.make_media import (
    jpeg_bytes,
    make_coco,
    make_crowdhuman,
    make_mot,
    make_sav_train,
    make_sav_val,
    make_scene,
    sa1b_document,
)
from trackmill.schemas.masks import format_counts, mask_runs


def _sa1b() -> list[Files]:
    image, masks = make_scene(24, 32, seed=1)
    return [{"sa_1.jpg": jpeg_bytes(image), "sa_1.json": json.dumps(sa1b_document(1, masks)).encode()}]


def _counts() -> list[Files]:
    return [{"mask.rle": format_counts(mask_runs(mask)).encode()} for mask in make_scene(24, 32, seed=1)[1]]


def _read_counts(folder: Path) -> object:
    from trackmill.pipeline.formats.segmentations import read_segmentation, read_segmentations
    from trackmill.pipeline.media.rle import crop_rle

    text = (folder / "mask.rle").read_bytes().decode("utf-8", "replace")
    value = {"size": [24, 32], "counts": text}
    mined = crop_rle(value, 24, 32, "mask.rle")
    scored = read_segmentation(value, 24, 32, "mask.rle")
    together = read_segmentations([value], [(24, 32)], lambda _: "mask.rle")
    assert together[0]["counts"] == scored["counts"]
    return mined, scored


@cache
def _sav() -> tuple[Files, Files]:
    with TemporaryDirectory() as made:
        train, validation = Path(made, "train"), Path(made, "val")
        train.mkdir()
        make_sav_train(train, num_frames=9, size=(32, 48))
        make_sav_val(validation, num_frames=5, size=(24, 32))
        return files_of(train), files_of(validation)


def _sav_train() -> list[Files]:
    return [_sav()[0]]


def _sav_val() -> list[Files]:
    return [_sav()[1]]


@cache
def _sequences() -> tuple[Files, ...]:
    with TemporaryDirectory() as made:
        for columns in (9, 10):
            make_mot(Path(made, str(columns)), num_frames=3, size=(24, 32), columns=columns)
        return files_of(Path(made, "9")), files_of(Path(made, "10"))


def _mot() -> list[Files]:
    return list(_sequences())


@cache
def _pictures() -> tuple[Files, ...]:
    with TemporaryDirectory() as made:
        for count in (1, 2):
            make_crowdhuman(Path(made, str(count)), count, height=24, width=32)
        make_coco(Path(made, "coco"), 2)
        return tuple(files_of(Path(made, name)) for name in ("1", "2", "coco"))


def _crowdhuman() -> list[Files]:
    return list(_pictures()[:2])


def _coco() -> list[Files]:
    return [_pictures()[2]]


def _read_crowdhuman(folder: Path) -> object:
    return read_all(folder, "crowdhuman")


def _read_coco(folder: Path) -> object:
    return read_all(folder, "coco")


def _read_sa1b(folder: Path) -> object:
    return read_all(folder, "sa1b")


def _read_sav(folder: Path) -> object:
    return read_all(folder, "sav")


def _read_mot(folder: Path) -> object:
    return read_all(folder, "mot")


ALL = (
    Target(name="sa1b-json", seeds=_sa1b, run=_read_sa1b, mutated=("*.json",), about=(EMPTY,), share=150),
    Target(name="rle", seeds=_counts, run=_read_counts, share=80),
    Target(name="sav-json", seeds=_sav_train, run=_read_sav, mutated=("*.json",), about=(EMPTY,), share=60),
    Target(name="sav-val", seeds=_sav_val, run=_read_sav, about=(EMPTY,), share=40),
    Target(name="crowdhuman", seeds=_crowdhuman, run=_read_crowdhuman, mutated=("*.odgt",), about=(EMPTY,), share=80),
    Target(name="coco", seeds=_coco, run=_read_coco, mutated=("*.json",), about=(EMPTY,), share=120),
    Target(name="mot", seeds=_mot, run=_read_mot, mutated=("*.txt", "*.ini"), about=(EMPTY,), share=120),
)
