"""A source and a proposer of somebody else's, by the real command line: in one process and on Ray, with settings."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.make_media import jpeg_bytes, make_pictures, make_scene
from tests.runs import ROOT, TIMEOUT_S, job_environment, rows, tars
from trackmill.pipeline.mining.settings import mine_config
from trackmill.schemas.config import ConfigError
from trackmill.schemas.errors import InputError

MODULE = '''
"""Knows Trackmill, and Trackmill does not know it."""

import hashlib
import os

import numpy as np
from pydantic import Field

from trackmill.models.proposers.base import Proposer
from trackmill.pipeline.media.fetching import fetch_bytes
from trackmill.pipeline.media.pictures import decode_picture
from trackmill.pipeline.media.scaling import annotations_of_frame
from trackmill.pipeline.sources.base import Claim, Source
from trackmill.pipeline.storage.urls import basename
from trackmill.schemas.config import Settings
from trackmill.schemas.keys import sample_key
from trackmill.schemas.media import Annotations, Frame, Media, ProposalSet, WorkItem


class CornerSettings(Settings):
    side: int = Field(8, ge=1, description="Of the box in every corner, in pixels.")


class Corners(Proposer):
    name = "corners"
    version = VERSION
    Config = CornerSettings

    def __init__(self, config=None):
        self.config = config or CornerSettings()

    @classmethod
    def build(cls, config, tensors, device):
        return cls(config)

    def propose(self, frames):
        found = []
        for frame in frames:
            height, width = frame.image.shape[:2]
            side = self.config.side
            boxes = np.array([[0, 0, side, side], [width - side, height - side, width, height]], np.float32)
            found.append(ProposalSet(boxes=boxes, scores=np.ones(2, np.float32), masks=[None, None]))
        return found


class TileSettings(Settings):
    label: str = "all"


class Tiles(Source):
    """`X.tile` is a JPEG whose left half is the object."""

    name = "tiles"
    version = 3
    annotated = True
    looked_for = "files ending in .tile"
    suffixes = (".tile",)
    Config = TileSettings

    def claim(self, files):
        uris = [file.uri for file in files if file.uri.endswith(".tile")]
        items = [
            WorkItem(source=self.name, source_id=uri, key=sample_key(self.name, basename(uri), uri), uri=uri)
            for uri in uris
        ]
        return Claim(items=items, used=set(uris))

    def read(self, item):
        data = fetch_bytes(item.uri, max_bytes=self.settings.max_item_bytes)
        picture = decode_picture(
            data, item.uri, max_pixels=self.settings.max_pixels, longest_side=self.settings.longest_side
        )
        left = np.array([[0, 0, picture.width / 2, picture.height]], np.float32)
        known = Annotations(boxes=left, ids=[1], scores=[1.0], masks=[None])
        size = (picture.height, picture.width)
        annotations = annotations_of_frame(known, size, picture.image)
        return Media(
            kind="image", frames=[Frame(image=picture.image, annotations=annotations)],
            original_height=picture.height, original_width=picture.width,
            sha256=hashlib.sha256(data).hexdigest(), num_bytes=len(data), annotated=True,
            license=self.config.label,
        )
'''
NAMES = ["--source", "my_package.my_module:Tiles", "--proposer", "my_package.my_module:Corners"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the command is typed: with the package, six tiles, and a `models/` that is not ours."""
    write_module(tmp_path, version=1)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("raise AssertionError('not ours')\n")
    (tmp_path / "in").mkdir()
    for number in range(6):
        (tmp_path / "in" / f"{number}.tile").write_bytes(jpeg_bytes(make_scene(60, 80, seed=number)[0]))
    return tmp_path


def write_module(folder: Path, version: int) -> None:
    (folder / "my_package").mkdir(exist_ok=True)
    (folder / "my_package" / "__init__.py").touch()
    (folder / "my_package" / "my_module.py").write_text(MODULE.replace("VERSION", str(version)))
    shutil.rmtree(folder / "my_package" / "__pycache__", ignore_errors=True)


def mine(folder: Path, output: str, *arguments: object, expect: int = 0) -> str:
    command = [sys.executable, str(ROOT / "jobs" / "mine_proposals.py"), "--input", "in", "--output", output]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        env=job_environment(),
        cwd=folder,
    )
    assert done.returncode == expect, done.stdout
    assert "Traceback" not in done.stdout
    return done.stdout


def test_both_from_outside_in_one_process(folder: Path) -> None:
    inline = ["--executor", "inline"]
    settings = ["--set", "proposer_settings.side=6", "--set", "source_settings.label=mine"]
    printed = mine(folder, "out", *NAMES, *settings, *inline)
    assert "6 ok" in printed
    found = rows(folder / "out")
    assert {row.license for row in found} == {"mine"}
    assert all(row.key.startswith("tiles-") for row in found)
    assert all((row.proposals, row.negatives) == (2, 2) for row in found), "no corner is the left half"
    document = json.loads((folder / "out" / "config.json").read_text())
    assert document["parts"]["source"] == {"name": "tiles", "version": 3, "settings": {"label": "mine"}}
    proposer = document["parts"]["proposer"]
    assert (proposer["name"], proposer["version"], proposer["settings"]) == ("corners", 1, {"side": 6})
    assert "my_module" not in json.dumps(document["parts"]), "where the code lies may change"
    assert "nothing was left to do" in mine(folder, "out", *NAMES, *settings, *inline)

    changed = mine(folder, "out", *NAMES, "--set", "source_settings.label=mine", *inline, expect=2)
    assert "proposer.settings.side: 6 -> 8" in changed
    write_module(folder, version=2)
    assert "proposer.version: 1 -> 2" in mine(folder, "out", *NAMES, *settings, *inline, expect=2)
    write_module(folder, version=1)
    make_pictures(folder / "in", count=1)
    ours = mine(folder, "out", "--proposer", NAMES[3], "--set", "proposer_settings.side=6", *inline, expect=2)
    assert "source.name: tiles -> not set" in ours, "sources of ours do not mix with it"


def test_a_broken_file_of_theirs_is_quarantined(folder: Path) -> None:
    (folder / "in" / "9.tile").write_bytes(b"no picture")
    printed = mine(folder, "out", *NAMES, "--executor", "inline")
    assert "6 ok, 1 quarantined" in printed
    assert "9.tile" in printed


@pytest.mark.slow  # both in one process are tested above, and Ray's workers elsewhere
@pytest.mark.ray
def test_both_from_outside_on_ray(folder: Path) -> None:
    options = [*NAMES, "--set", "proposer_settings.side=5", "--set", "shards.unit_frames=2"]
    mine(folder, "inline", *options, "--executor", "inline")
    mine(folder, "ray", *options, "--workers", 2)
    assert tars(folder / "ray") == tars(folder / "inline")
    assert len(tars(folder / "ray")) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            [*NAMES, "--set", "proposer_settings.sied=5"],
            "unknown key 'proposer_settings.sied'; did you mean 'proposer_settings.side'?",
            id="misspelt setting of the proposer",
        ),
        pytest.param(
            [*NAMES, "--set", "source_settings.lable=x"],  # codespell:ignore
            "unknown key 'source_settings.lable'; did you mean 'source_settings.label'?",
            id="misspelt setting of the source",
        ),
        pytest.param([*NAMES, "--set", "proposer_settings.side=0"], "proposer_settings.side", id="out of range"),
        pytest.param(["--proposer", "my_package.my_modul:Corners"], "no module 'my_package.my_modul'", id="no module"),
        pytest.param(["--proposer", "my_package.my_module:Corner"], "did you mean 'Corners'?", id="no class"),
        pytest.param(["--proposer", "my_package.my_module:Tiles"], "no class derived from", id="a source to propose"),
        pytest.param(["--source", "my_package.my_module:Corners"], "no class derived from", id="a proposer to read"),
        pytest.param(["--source", "imges"], "did you mean 'images'?", id="misspelt name of ours"),
        pytest.param(["--proposer", "grahp"], "did you mean 'graph'?", id="misspelt proposer of ours"),
    ],
)
def test_mistakes_are_one_clear_line(
    folder: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings in this process, which is quick; the line that a job prints is tested with the jobs."""
    values: dict[str, object] = {}
    monkeypatch.syspath_prepend(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        monkeypatch.delitem(sys.modules, name)
    for option, value in zip(arguments[::2], arguments[1::2], strict=True):
        if option == "--set":
            section, _, rest = value.partition(".")
            key, _, setting = rest.partition("=")
            values[section] = {key: int(setting) if setting.isdecimal() else setting}
        else:
            values[option.removeprefix("--")] = value
    with pytest.raises((ConfigError, InputError)) as caught:
        mine_config(values, "settings")
    assert message in str(caught.value)


def test_a_name_of_ours_cannot_be_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = MODULE.replace("VERSION", "1").replace('"corners"', '"graph"').replace('"tiles"', '"mot"')
    (tmp_path / "impostors.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    for values in ({"proposer": "impostors:Corners"}, {"source": "impostors:Tiles"}):
        with pytest.raises(InputError, match=r"its name '(graph|mot)'"):
            mine_config(values, "settings")
