"""What the HTML sheets are made of: pictures as data URIs, boxes on them, untrusted text fit to be shown."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image

from trackmill.pipeline.storage.credentials import scrub

_MAX_TEXT = 400
_JPEG_QUALITY = 78


@dataclass(frozen=True, slots=True)
class Mark:
    """A box on a thumbnail: place in stored pixels, colour, what a pointer resting on it shows, what is written."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    title: str
    label: str = ""


def shown(value: object) -> str:
    """Untrusted text fit to be shown: no credentials, no control characters, of bounded length; escaped by Jinja."""
    text = "".join(c if c.isprintable() else " " for c in scrub(str(value)))
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT // 2]} … {text[-_MAX_TEXT // 2 :]}"


def jpeg_bytes(picture: Image.Image) -> bytes:
    """A thumbnail as JPEG."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return out.getvalue()


def data_uri(kind: str, data: bytes) -> str:
    """A picture as it stands inside a page; `kind` is `jpeg` or `png`."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
