"""Videos in every container that real data sets use: probed, listed, decoded."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from tests.fuzz.target import Files, Target
from tests.fuzz.targets.media import EMPTY, read_all
from tests.make_media import make_scene, make_video

_SIZE = (32, 48)
_FRAMES = 9


@cache
def _made() -> dict[str, Files]:
    made: dict[str, Files] = {}
    with TemporaryDirectory() as folder:
        for suffix, codec in (
            *(("mp4", "libx264"), ("mov", "libx264"), ("mkv", "libx264"), ("ts", "libx264"), ("flv", "libx264")),
            *(("avi", "mpeg4"), ("webm", "libvpx"), ("mpg", "mpeg1video"), ("asf", "mpeg4")),
        ):
            path = make_video(Path(folder, f"clip.{suffix}"), _FRAMES, 24, _SIZE, codec=codec, bframes=0, gop=4)
            made[suffix] = {path.name: path.read_bytes()}
        path = make_video(Path(folder, "front.mp4"), _FRAMES, 24, _SIZE, faststart=True)
        made["faststart"] = {path.name: path.read_bytes()}
    out = io.BytesIO()
    frames = [Image.fromarray(make_scene(*_SIZE, step=i)[0]).convert("P") for i in range(5)]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    made["gif"] = {"moving.gif": out.getvalue()}
    return made


def _some(*suffixes: str) -> list[Files]:
    return [_made()[suffix] for suffix in suffixes]


def _mp4() -> list[Files]:
    return _some("mp4", "mov", "faststart")


def _others() -> list[Files]:
    return _some("mkv", "webm", "avi", "ts", "flv", "mpg", "asf", "gif")


def _read(folder: Path) -> object:
    return read_all(folder, "videos")


ALL = (
    Target(name="mp4", seeds=_mp4, run=_read, about=(EMPTY,), share=120),
    Target(name="video", seeds=_others, run=_read, about=(EMPTY,), share=160),
)
