"""The contact sheet: complete in itself, safe against what it shows, bounded; and the pictures it is made of."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.make_dataset import make_dataset
from trackmill.pipeline.inspect import contact_sheet as sheet
from trackmill.pipeline.inspect.contact_sheet import contact_sheet, write_contact_sheet
from trackmill.pipeline.inspect.overlay import draw_frame, draw_sample
from trackmill.pipeline.media.drawing.layers import FIRM, label_map, labels_png, labels_rgba
from trackmill.pipeline.media.drawing.palette import css, identity_colour
from trackmill.pipeline.shards.reader import open_dataset, read_sample
from trackmill.schemas.masks import crop_mask

EVIL = "<script>alert(1)</script>"


class Tags(HTMLParser):
    """All tags with their attributes, and a check that they close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("set"))
    return open_dataset(
        make_dataset(root, uri_prefix=f"https://user:secret@host/{EVIL}", reason=f"{EVIL}\" onload='x'").root
    )


@pytest.fixture(scope="module")
def html(dataset) -> str:
    return contact_sheet(dataset)


def test_nothing_is_fetched_and_no_script_runs_but_its_own(html):
    tags = Tags(html)
    assert tags.open == []
    assert not {tag for tag, _ in tags.found} & {"link", "iframe", "object", "base", "a", "img", "form"}
    for _, attributes in tags.found:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "action", "xlink:href"):
            assert attributes.get(name, "data:image/").startswith("data:image/")
    assert "url(" not in html and "@import" not in html and "default-src 'none'" in html
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    own = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{own}'" in html and html.count("<script") == 1
    for word in ("fetch", "XMLHttpRequest", "innerHTML", "import", "eval", "http"):
        assert word not in script


def test_the_best_boxes_are_drawn_and_the_rest_waits(dataset, monkeypatch):
    monkeypatch.setattr(sheet, "BEST_BOXES", 1)
    html = contact_sheet(dataset, max_samples=1)
    for layer, hidden in (("proposals", 1), ("negatives", 1), ("refused", 1), ("objects", 0)):
        (group,) = re.findall(rf'<g class="layer {layer}">(.*?)</g>', html, re.DOTALL)
        assert group.count("<rect") == 2 and group.count(" hidden>") == hidden, layer
    (mask,) = re.findall(r'layer proposals">\s*<image class="mask" href="data:image/png;base64,([^"]+)', html)
    labels = np.asarray(Image.open(io.BytesIO(base64.b64decode(mask))))
    (key,) = re.findall(r'<p class="key mono">(.*?)</p>', html)
    masks = [m for m in read_sample(dataset, key).proposal_masks(0)[:1] if m]
    assert (labels != 0).sum() == (label_map(masks, 48, 64, 1.0) != 0).sum(), "the mask of the best one alone"


def test_what_it_shows_is_escaped_and_without_credentials(html):
    assert EVIL not in html and "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "secret" not in html


def test_every_sample_and_every_layer_is_there(html, dataset):
    for row in dataset.stored:
        assert row.key in html
    assert "TruncatedMedia" in html and "negatives.max_iou" in html
    for layer in ("proposals", "negatives", "objects", "refused"):
        assert f'<g class="layer {layer}">' in html and f'id="show-{layer}"' in html
    assert "refused: small" in html and "negative 2: score 0.57" in html


def test_clips_are_strips_and_identities_keep_their_colour(html):
    (strip,) = re.findall(r'<div class="strip">(.*?)<div class="about">', html, re.DOTALL)
    assert strip.count("<figcaption>") == sheet.STRIP_FRAMES
    assert "frame 0 · 0.00 s" in strip and "frame 36 · 1.50 s" in strip
    for identity in (7, 12):
        colour = css(identity_colour(identity))
        drawn = re.findall(rf'stroke="(#\w+)"><title>object {identity}:', strip)
        assert drawn == [colour] * sheet.STRIP_FRAMES


def test_pictures_are_what_the_shards_hold(html, dataset):
    first = re.search(r'class="photo" href="data:image/jpeg;base64,([^"]+)"', html)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(first.group(1)))).convert("RGB"))
    (key, *_) = re.findall(r'<p class="key mono">(.*?)</p>', html)
    stored = read_sample(dataset, key).image(0)
    assert shown.shape == stored.shape and np.abs(shown.astype(int) - stored).mean() < 8


def test_the_file_is_bounded(dataset, tmp_path, monkeypatch):
    assert contact_sheet(dataset, max_samples=2).count("<article") == 2
    assert contact_sheet(dataset, max_bytes=1).count("<article") == 1
    monkeypatch.setattr(sheet, "MAX_BOXES", 1)
    assert contact_sheet(dataset, max_samples=1).count("<rect") == 4
    target = tmp_path / "new" / "sheet.html"
    assert write_contact_sheet(dataset, str(target)) == target.stat().st_size


def test_large_frames_become_thumbnails(tmp_path):
    wide = open_dataset(make_dataset(str(tmp_path), num_images=1, num_frames=2, height=600, width=800).root)
    pictures = re.findall(r'class="photo" href="data:image/jpeg;base64,([^"]+)"', contact_sheet(wide))
    widths = [Image.open(io.BytesIO(base64.b64decode(picture))).width for picture in pictures]
    assert widths == [sheet.STRIP_WIDTH, sheet.STRIP_WIDTH, sheet.PICTURE_WIDTH], "clips come first"


def test_a_damaged_sample_is_named_and_the_others_shown(tmp_path):
    layout = make_dataset(str(tmp_path))
    dataset = open_dataset(layout.root)
    path, row = Path(layout.shard(dataset.shards[0].name)), dataset.stored[1]
    data = bytearray(path.read_bytes())
    data[row.offset + 512 : row.offset + 532] = b"x" * 20
    path.write_bytes(data)
    html = contact_sheet(dataset)
    assert html.count("<article") == 5 and f"{row.key}.json: is damaged: the checksum" in html


def test_an_empty_set_and_tars_alone_have_sheets_too(tmp_path, dataset):
    empty = contact_sheet(open_dataset(make_quarantined_only(tmp_path).root))
    assert "0 of 0 samples" in empty
    assert "No sample is stored here; what was quarantined stands below." in empty
    alone = contact_sheet(open_dataset(dataset.layout.shards))
    assert alone.count("<article") == 5 and "No sample is stored" not in alone


def make_quarantined_only(tmp_path):
    from tests.make_dataset import make_item, make_row
    from trackmill.pipeline.shards.layout import Layout
    from trackmill.pipeline.shards.receipts import write_receipt

    layout = Layout(str(tmp_path))
    row = make_row(make_item("images", "x"), 0, 0, status="quarantined", reason="?", error_class="BadItem")
    write_receipt(layout, 0, [row], [], "f")
    return layout


def test_label_maps_mark_insides_and_outlines():
    large, small = np.zeros((40, 60), bool), np.zeros((40, 60), bool)
    large[5:35, 5:50], small[10:20, 10:20] = True, True
    labels = label_map([crop_mask(large), None, crop_mask(small)], 40, 60, 1.0)
    assert (labels != 0).sum() == large.sum(), "no pixel outside the masks"
    assert labels[30, 30] == 1 and labels[5, 5] == -1
    assert labels[15, 15] == 3 and labels[10, 10] == -3, "the small mask lies on top"
    half = label_map([crop_mask(large)], 40, 60, 0.5)
    assert half.shape == (20, 30) and half[15, 15] == 1


def test_mask_png_has_the_colours_of_the_map():
    mask = np.zeros((20, 20), bool)
    mask[4:16, 4:16] = True
    labels = label_map([crop_mask(mask)], 20, 20, 1.0)
    shown = np.asarray(Image.open(io.BytesIO(labels_png(labels, [(9, 99, 199)], FIRM))).convert("RGBA"))
    assert np.array_equal(shown[mask], labels_rgba(labels, [(9, 99, 199)], FIRM)[mask])
    assert not shown[~mask][:, 3].any()


def test_overlay_draws_layers_on_the_frame(dataset):
    sample = read_sample(dataset, dataset.stored[0].key)
    bare = draw_frame(sample, 0, layers=())
    assert np.array_equal(bare, sample.image(0))
    x0, y0, *_ = (round(value) for value in sample.record.frames[0].objects.boxes[0])
    boxed = draw_frame(sample, 0, layers=("objects",), width=128)
    assert boxed.shape == (96, 128, 3)
    assert tuple(draw_frame(sample, 0, layers=("proposals",))[y0, x0]) != tuple(bare[y0, x0])


def test_overlay_of_a_clip_is_a_strip(dataset):
    clip = read_sample(dataset, dataset.stored[-1].key)
    picture = Image.open(io.BytesIO(draw_sample(clip, max_frames=3, width=100)))
    assert picture.size == (3 * 100 + 2 * 8, 75)
