"""Tars and zips of pictures, walked and read in place."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

from tests.fuzz.target import Files, Target
from tests.fuzz.targets.media import EMPTY, read_all
from tests.make_media import add_member, jpeg_bytes, make_scene, sa1b_document


def _members() -> Files:
    members = {}
    for number in (1, 2):
        image, masks = make_scene(24, 32, seed=number)
        members[f"sa_{number}.jpg"] = jpeg_bytes(image)
        members[f"sa_{number}.json"] = json.dumps(sa1b_document(number, masks)).encode()
    return members


def _tar(dialect: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=dialect) as tar:
        for name, data in _members().items():
            add_member(tar, name, data)
    return out.getvalue()


def _tars() -> list[Files]:
    return [{"sa_000000.tar": _tar(dialect)} for dialect in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]


def _zips() -> list[Files]:
    made = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as archive:
            for name, data in _members().items():
                archive.writestr(zipfile.ZipInfo(name), data, method)
        made.append({"pictures.zip": out.getvalue()})
    return made


def _read_sa1b(folder: Path) -> object:
    return read_all(folder, "sa1b")


def _read_webdataset(folder: Path) -> object:
    return read_all(folder, "webdataset")


ALL = (
    Target(name="tar", seeds=_tars, run=_read_sa1b, about=(EMPTY,), share=150),
    Target(name="tar-webdataset", seeds=_tars, run=_read_webdataset, about=(EMPTY,), share=40),
    Target(name="zip", seeds=_zips, run=_read_webdataset, about=(EMPTY,), share=100),
)
