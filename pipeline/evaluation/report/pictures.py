"""Finds the pictures of moments under one URL, in any of the layouts that benchmarks have."""

from __future__ import annotations

import base64
import io
import struct
import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from trackmill.pipeline.evaluation.report.report import Moment
from trackmill.pipeline.storage.credentials import protocol_of, redact, scrub
from trackmill.pipeline.storage.files import exists, open_for_seeking, read_bytes
from trackmill.pipeline.storage.list_files import list_files
from trackmill.pipeline.storage.urls import basename, canonical, dirname, join
from trackmill.schemas.errors import InputError

LONGEST_SIDE = 960
"""Pixels of an embedded picture; larger ones are scaled down."""

_MAX_PIXELS = 100_000_000
_MAX_BYTES = 128 << 20
_JPEG_QUALITY = 80
_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
# An explicit list, because Pillow also has formats that run another program or open other files.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
_SIDEWAYS = (5, 6, 7, 8)
_ORIENTATION = 0x0112

# Errors that Pillow or the video decoder raise for broken files, and those of storage.
_BROKEN = (
    *(OSError, ValueError, ImportError, SyntaxError, TypeError, LookupError, ArithmeticError, EOFError),
    *(AttributeError, AssertionError, NotImplementedError, struct.error),
)


class NoPicture(InputError):
    """There is no picture of a moment; the message says why."""

    def __init__(self, text: str) -> None:
        super().__init__("".join(c if c.isprintable() else "?" for c in text))  # names may hold line breaks


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedFrame:
    """A frame to show: JPEG as a data URI, and its width and height in pixels before it was scaled down."""

    uri: str
    width: int
    height: int


class Frames:
    """Finds the pictures of a benchmark under one URL, in any of the usual layouts.

    - If a moment has a picture name: that name below the root or the sequence, or the name without its first folders.
    - `SEQUENCE/img1/000001.jpg` of MOTChallenge, by the number in the name, from 1; or `SEQUENCE/*.jpg` in the order
      of their names. The root may be the sequence's own folder.
    - `SEQUENCE.mp4`, `SEQUENCE/SEQUENCE.mp4`, or a root that is the video of the only sequence, by frame.

    Args:
        root: any URL.
        only: name of the sequence if there is only one, else empty.
    """

    def __init__(self, root: str, only: str = "") -> None:
        self._only = only
        self._listed: dict[str, list[str]] = {}
        self._readers: dict[str, Any] = {}
        self._open = ExitStack()
        self._fault = ""
        try:
            self._root = canonical(root)
            # A web server may serve the files of a folder that it does not list.
            if not exists(self._root) and protocol_of(self._root) not in ("http", "https"):
                self._fault = f"nothing at {redact(self._root)}"
        except _BROKEN as error:
            self._fault = _reason(error)

    def __enter__(self) -> Frames:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def picture(self, moment: Moment) -> EmbeddedFrame:
        """The picture of a moment.

        Raises:
            NoPicture: there is none, or it cannot be read.
        """
        if self._fault:
            raise NoPicture(self._fault)
        try:
            return self._by_name(moment) if moment.frame_name else self._by_sequence(moment)
        except NoPicture:
            raise
        except _BROKEN as error:
            if type(error) is OSError:
                # Storage has retried already; do not wait again for each moment while it is down.
                self._fault = _reason(error)
            raise NoPicture(_reason(error)) from error

    def _by_name(self, moment: Moment) -> EmbeddedFrame:
        folders = _parts(moment.frame_name)
        below = [folders, [*_parts(moment.sequence), *folders]]
        # A bare file name, without a folder, could belong to another sequence.
        below += [folders[i:] for i in range(1, len(folders) - 1)]
        for parts in below:
            try:
                data = read_bytes(join(self._root, *parts), max_bytes=_MAX_BYTES)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                continue
            return _decode(data, "/".join(parts))
        raise NoPicture(f"no {moment.frame_name} under {redact(self._root)}")

    def _by_sequence(self, moment: Moment) -> EmbeddedFrame:
        parts = _parts(moment.sequence)
        root, name = self._root, parts[-1]
        if root.lower().endswith(_VIDEOS) and (_stem(root) == name or moment.sequence == self._only):
            return self._of_video(root, moment.frame)
        for folder in (join(root, *parts), *([root] if basename(root) == name else [])):
            files = self._list(folder)
            pictures = [uri for uri in files if uri.lower().endswith(_PICTURES)]
            numbered = [uri for uri in pictures if dirname(uri).endswith("/img1")]
            if numbered:
                return self._of_number(numbered, moment.frame + 1)
            inside = [uri for uri in pictures if basename(dirname(uri)) == basename(folder)]
            if inside and moment.frame >= len(inside):
                raise NoPicture(f"{redact(folder)} holds only {len(inside):,} pictures")
            if inside:
                return _read(inside[moment.frame])
            for uri in files:
                if uri.lower().endswith(_VIDEOS) and _stem(uri) == name:
                    return self._of_video(uri, moment.frame)
        for suffix in _VIDEOS:
            uri = join(root, *parts) + suffix
            if uri in self._readers or exists(uri):
                return self._of_video(uri, moment.frame)
        raise NoPicture(f"neither pictures nor a video of {moment.sequence} under {redact(root)}")

    def _list(self, folder: str) -> list[str]:
        if folder not in self._listed:
            # The check comes first because the name of a missing folder might act as a pattern that matches others.
            self._listed[folder] = [file.uri for file in list_files(folder)] if exists(folder) else []
        return self._listed[folder]

    def _of_number(self, pictures: list[str], number: int) -> EmbeddedFrame:
        for uri in pictures:
            stem = _stem(uri)
            if stem.isdecimal() and stem.lstrip("0") == str(number):
                return _read(uri)
        raise NoPicture(f"no picture with the number {number:,} in {redact(dirname(pictures[0]))}")

    def _of_video(self, uri: str, frame: int) -> EmbeddedFrame:
        # Imported late: reading videos loads FFmpeg's libraries.
        from trackmill.pipeline.media.videos import VideoReader

        if uri not in self._readers:
            handle = self._open.enter_context(open_for_seeking(uri))
            reader = VideoReader(handle, redact(uri), max_pixels=_MAX_PIXELS, longest_side=LONGEST_SIDE)
            self._open.callback(reader.close)
            self._readers[uri] = reader
        decoded = next(self._readers[uri].read([frame]))
        return EmbeddedFrame(uri=_jpeg_uri(Image.fromarray(decoded.image)), width=decoded.width, height=decoded.height)


def _parts(path: str) -> list[str]:
    """Split a path from an untrusted file.

    Raises:
        NoPicture: the path is empty or leads out of its folder.
    """
    parts = path.split("/")
    if not path or "://" in path or any(part in ("", ".", "..") for part in parts):
        raise NoPicture(f"{path!r} is no path below the frames")
    return parts


def _stem(uri: str) -> str:
    return basename(uri).rpartition(".")[0]


def _reason(error: BaseException) -> str:
    return " ".join(scrub(str(error)).split()) or type(error).__name__


def _read(uri: str) -> EmbeddedFrame:
    return _decode(read_bytes(uri, max_bytes=_MAX_BYTES), redact(uri))


def _decode(data: bytes, name: str) -> EmbeddedFrame:
    try:
        with warnings.catch_warnings():
            # Pillow warns about odd metadata, which does not matter here.
            warnings.simplefilter("ignore")
            return _scaled(Image.open(io.BytesIO(data), formats=_FORMATS))
    except UnidentifiedImageError:
        raise NoPicture(f"{name} is no picture of a known format, or its header is broken") from None
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise NoPicture(f"{name}: {_reason(error)}") from error


def _scaled(image: Image.Image) -> EmbeddedFrame:
    width, height = image.size
    if width * height > _MAX_PIXELS:
        raise NoPicture(f"declares {width:,} x {height:,} pixels, more than the limit of {_MAX_PIXELS:,}")
    # Lets Pillow decode a JPEG directly at a fraction of its size.
    image.draft("RGB", (LONGEST_SIDE, LONGEST_SIDE))
    image.load()
    if image.getexif().get(_ORIENTATION) in _SIDEWAYS:
        width, height = height, width
    upright = ImageOps.exif_transpose(image).convert("RGB")
    upright.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return EmbeddedFrame(uri=_jpeg_uri(upright), width=width, height=height)


def _jpeg_uri(image: Image.Image) -> str:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"
