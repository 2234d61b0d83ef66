"""What people look at: the table is never cut, the page is complete and safe, moments show what CLEAR matched."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from tests.evaluation.make_tracks import make_video
from tests.make_media import make_video as make_media_video
from tests.shared_data import DATA, needs_data
from trackmill.pipeline.evaluation.metrics.clear import clear
from trackmill.pipeline.evaluation.overlaps import find_overlaps
from trackmill.pipeline.evaluation.report.html import MAX_MOMENTS, page, write_html
from trackmill.pipeline.evaluation.report.moments import add_timelines, describe_moments, worst_first
from trackmill.pipeline.evaluation.report.pictures import LONGEST_SIDE, EmbeddedFrame, Frames, NoPicture
from trackmill.pipeline.evaluation.report.plots import curves_plot, draw_moment, timeline_plot
from trackmill.pipeline.evaluation.report.report import Drawn, Moment, Report, Timeline
from trackmill.pipeline.evaluation.report.table import columns, extremes, format_number, print_report
from trackmill.pipeline.evaluation.tracks import make_tracks

EVIL = "<script>alert(1)</script>\x1b[31m\u202e[bold]"
HOTA = {
    "IDF1": 70.5,
    "HOTA": 62.125,
    "AssA": 60.0,
    "IDSW": 1234,
    "DetA": 64.0,
    "LocA": 88.5,
    "MOTA": -3.25,
    "Odd": None,
}


@pytest.fixture
def moment() -> Moment:
    return Moment(
        sequence="one",
        frame=2,
        frame_name="",
        label="person",
        switches=((5, 3, 7),),
        gt=(
            Drawn(id=5, box=(10, 10, 30, 40), state="gt"),
            Drawn(id=6, box=(60, 10, 80, 40), state="missed"),
        ),
        predictions=(
            Drawn(id=7, box=(11, 11, 31, 41), state="switch"),
            Drawn(id=9, box=(40, 50, 55, 60), state="false"),
        ),
    )


@pytest.fixture
def report(moment) -> Report:
    return Report(
        benchmark="mot17",
        iou="box",
        metrics=dict(HOTA),
        sequences={"one": dict(HOTA), EVIL: {**HOTA, "HOTA": 12.5}},
        classes={"person": dict(HOTA), "car": dict.fromkeys(HOTA)},
        settings={"class_vote": False, "preprocess": True, "rule": "corrected", "nested": {"a": 1, "deep": {"b": 2}}},
        notes=[f"{EVIL} at s3://user:secret@bucket/x"],
        curves={"one": {"HOTA": [80.0] * 18 + [5.0], "DetA": [90.0] * 19, "AssA": [70.0] * 19}},
        timelines={"one": Timeline(tp=[2, 1, 1], fn=[0, 1, 1], fp=[0, 0, 1], idsw=[0, 0, 1])},
        moments=[moment],
    )


# The table


def lines_of(capsys, report: Report, width: int | None = None) -> list[str]:
    print_report(report, width=width)
    return capsys.readouterr().out.splitlines()


def test_columns_stand_in_the_fields_order():
    assert columns([HOTA]) == ["HOTA", "DetA", "AssA", "LocA", "MOTA", "IDSW", "IDF1", "Odd"]
    both = dict.fromkeys(["Own", "TP", "HOTA", "HOTA.LocA", "AssA", "DetA", "ClsA", "AssocA", "LocA", "TETA", "mHOTA"])
    assert columns([{}, both]) == [
        *("mHOTA", "TETA", "LocA", "AssocA", "ClsA", "HOTA", "DetA", "AssA", "HOTA.LocA", "TP", "Own")
    ]
    assert columns([{"AR": 1.0}, {"AP75": 1.0, "AP": 1.0, "AP50": 1.0}]) == ["AP", "AP50", "AP75", "AR"]


def test_numbers():
    assert [format_number(value) for value in (62.12349, 0.0, 1234567, 0, None)] == [
        "62.123",
        "0.000",
        "1,234,567",
        "0",
        "–",
    ]


def test_a_pipe_gets_one_plain_line_a_row_whatever_the_environment_asks_for(capsys, report, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")
    lines = lines_of(capsys, report)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", "".join(lines))
    assert lines[0] == "mot17 · boxes · 2 sequences · 2 classes"
    assert [line.split() for line in lines if line.startswith(("sequence", "one", "TOTAL"))] == [
        ["sequence", "HOTA", "DetA", "AssA", "LocA", "MOTA", "IDSW", "IDF1", "Odd"],
        ["one", "62.125", "64.000", "60.000", "88.500", "-3.250", "1,234", "70.500", "–"],
        ["TOTAL", "62.125", "64.000", "60.000", "88.500", "-3.250", "1,234", "70.500", "–"],
    ]
    assert any(line.startswith(r"<script>alert(1)</script>\x1b[31m\xe2\x80\xae[bold]") for line in lines)
    assert "secret" not in "".join(lines)


def test_settings_that_are_the_default_are_left_out(capsys, report):
    assert lines_of(capsys, report)[1] == "class_vote no · rule corrected · nested.a 1"


@pytest.mark.parametrize("width", [1, 9, 24, 40, 80, 120])
def test_nothing_is_cut_however_narrow(capsys, report, width):
    greek = "αβγδεζηθικλμνξοπρστυφχψω"
    report.sequences[greek * 3] = {**HOTA, "IDSW": 98765432}
    lines = lines_of(capsys, report, width)
    text = "\n".join(lines)
    for value in ("62.125", "88.500", "-3.250", "98,765,432", "1,234", "70.500"):
        assert re.search(rf"(?<![\d.,]){value}(?![\d.,])", text)
    assert "…" not in text
    assert "".join(letter for letter in text if letter in greek) == greek * 3 * text.count("TOTAL")
    tables = [line for line in lines if re.search(r"\d\.\d{3}", line)]
    assert all(len(line.rstrip()) <= max(width, 24) for line in tables)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_colour_and_its_own_width(report, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    for name, value in {"COLUMNS": "48", "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    print_report(report)
    plain = re.sub(r"\x1b\[[\d;]*m", "", terminal.getvalue())
    assert plain != terminal.getvalue() and "\x1b" not in plain
    assert max(len(line.rstrip()) for line in plain.splitlines() if "TOTAL" in line) <= 48
    assert plain.count("TOTAL") > 1, "the table goes on below itself"


def test_a_stream_that_knows_only_ascii(report, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    print_report(report)
    assert b"62.125" in raw.getvalue() and b"?" in raw.getvalue()


def test_a_long_list_of_classes_keeps_its_ends(capsys, report):
    report.classes = {f"c{i}": {"HOTA": float(i * 37 % 296) if i % 8 else None} for i in range(296)}
    report.classes["c1"]["HOTA"] = 99.5e3
    lines = lines_of(capsys, report)
    begin = next(i for i, line in enumerate(lines) if line.startswith("class "))
    rows = lines[begin + 1 : begin + 42]
    assert rows[20].strip() == "and 256 more in --out"
    values = [float(row.split()[1]) for row in rows[:20] + rows[21:]]
    scores = sorted((row["HOTA"] for row in report.classes.values() if row["HOTA"] is not None), reverse=True)
    assert values == scores[:20] + scores[-20:]


def test_extremes():
    rows = {name: {"x": value} for name, value in {"a": 1.0, "b": None, "c": 3.0, "d": 2.0}.items()}
    assert extremes(rows, "x", 4) == (["a", "b", "c", "d"], [], 0)
    assert extremes(rows, "x", 3) == (["c", "d", "a"], [], 1)
    assert extremes(rows, "x", 2) == (["c"], ["a"], 2)
    assert extremes({name: {} for name in "abc"}, "", 2) == ([], [], 3)


def test_base_and_novel(capsys, report):
    report.base, report.novel = {"HOTA": 50.0}, {"HOTA": None}
    lines = lines_of(capsys, report)
    assert [line.split()[:2] for line in lines if line.startswith(("base", "novel", "all"))] == [
        *(["base", "50.000"], ["novel", "–"], ["all", "62.125"])
    ]


def test_a_report_without_anything(capsys):
    empty = Report(benchmark="tao", iou="mask", metrics={}, notes=["no objects in the ground truth"])
    lines = lines_of(capsys, empty)
    assert lines[0] == "tao · masks · 0 sequences" and lines[-1] == "note: no objects in the ground truth"
    assert "There is no score." in page(empty)


# The page


class Tags(HTMLParser):
    """All tags with their attributes, and a check that they close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)


def test_nothing_is_fetched_and_only_our_script_runs(report, tmp_path):
    (tmp_path / "one").mkdir()
    Image.new("RGB", (90, 70)).save(tmp_path / "one" / "0.png")
    html = page(report, str(tmp_path))
    tags = Tags(html)
    assert tags.open == []
    assert not {tag for tag, _ in tags.found} & {"link", "iframe", "object", "base", "a", "img"}
    for _, attributes in tags.found:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "action", "xlink:href"):
            assert (attributes.get(name) or "data:image/").startswith("data:image/")
    assert "url(" not in html and "@import" not in html
    policy = next(a["content"] for tag, a in tags.found if tag == "meta" and "http-equiv" in a)
    (script,) = tags.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.split("; ") == [
        *("default-src 'none'", "img-src data:", "style-src 'unsafe-inline'", f"script-src 'sha256-{digest}'")
    ]


def test_what_it_shows_is_escaped_and_without_credentials(report, moment):
    report.moments = [replace(moment, sequence=EVIL, label=EVIL)]
    report.curves[EVIL], report.timelines[EVIL] = report.curves["one"], report.timelines["one"]
    report.classes[EVIL] = report.settings[EVIL] = report.metrics[EVIL] = 1.0
    report.classes[EVIL] = {EVIL: 1.0}
    report.benchmark = EVIL
    html = page(report)
    assert "<script>alert" not in html and "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", html)
    assert "secret" not in html
    assert Tags(html).open == []


def cells(html: str, title: str) -> dict[str, list[str]]:
    """Texts of a table's rows by the text of their heading."""
    table = next(t for t in re.findall(r"<table.*?</table>", html, re.S) if f'<th scope="col">{title}</th>' in t)
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S) for row in re.findall(r"<tr>.*?</tr>", table, re.S)]
    return {row[0]: row[1:] for row in rows}


def test_every_number_is_there(report):
    html = page(report)
    table = cells(html, "sequence")
    shown = ["62.125", "64.000", "60.000", "88.500", "-3.250", "1,234", "70.500", "–"]
    assert table["sequence"] == ["HOTA", "DetA", "AssA", "LocA", "MOTA", "IDSW", "IDF1", "Odd"]
    assert table["one"] == shown and table["TOTAL"] == shown
    assert cells(html, "class")["car"] == ["–"] * 8
    assert '<dt title="identity switches">IDSW</dt><dd>1,234</dd>' in html
    assert "nan" not in html.lower().replace("&", "")
    for line in ("class_vote <b>no</b>", "preprocess <b>yes</b>", "nested.a <b>1</b>"):
        assert line in html


def test_base_and_novel_on_the_page(report):
    report.base, report.novel = {"HOTA": 50.0, "IDSW": 3}, {"HOTA": None}
    html = page(report)
    section = html[html.index("Base and novel classes") : html.index("<h2>Sequences")]
    assert re.findall(r'<li class="(\w+)">.*?width:([\d.]+)%.*?<span>(\S+)</span></li>', section)[:3] == [
        *(("all", "62.12", "62.125"), ("base", "50.0", "50.000"), ("novel", "0.0", "–"))
    ]
    assert "IDSW" not in section


def test_bars_are_ranked_and_bounded(report):
    report.sequences = {f"s{i:03d}": {"HOTA": float(i), "DetA": None} for i in range(99)}
    html = page(report)
    bars = html[html.index('<ul class="bars">') : html.index("</ul>", html.index('<ul class="bars">'))]
    names = re.findall(r'class="name">(\w+)<', bars)
    assert names == [f"s{i:03d}" for i in [*range(98, 68, -1), *range(29, -1, -1)]]
    assert "and 39 more between" in bars


def test_the_page_is_written_anywhere(report):
    size = write_html(report, "memory://reports/deep/page.html")
    written = fsspec.filesystem("memory").cat_file("/reports/deep/page.html")
    assert len(written) == size and written.decode().startswith("\n<!doctype html>".lstrip())


# Plots


def points(svg: str, kind: str) -> np.ndarray:
    found = re.search(rf'class="{kind}" points="([^"]*)"', svg)
    return np.array([pair.split(",") for pair in found[1].split()], float)


def test_curves_stand_where_their_values_are():
    svg = str(curves_plot({"HOTA": [100 - 5 * i for i in range(19)], "DetA": [50] * 19}, EVIL))
    line = points(svg, "line line-0")
    low, high = (float(re.search(rf'y1="([\d.]+)"[^>]*/><text class="end"[^>]*>{v}<', svg)[1]) for v in (0, 100))
    np.testing.assert_allclose(line[:, 1], low + (high - low) * np.linspace(1, 0.1, 19), atol=0.06)
    np.testing.assert_allclose(np.diff(line[:, 0]), np.diff(line[:, 0])[0], atol=0.11)
    assert (points(svg, "line line-1")[:, 1] == round((low + high) / 2, 1)).all()
    assert "<script" not in svg


@pytest.mark.parametrize("length", [1, 3, 139, 141, 1000])
def test_timeline_keeps_means_and_every_switch(length):
    rng = np.random.default_rng(length)
    tp, fn, fp, idsw = (rng.integers(0, high, length).tolist() for high in (9, 4, 5, 2))
    svg = str(timeline_plot(Timeline(tp=tp, fn=fn, fp=fp, idsw=idsw), "s"))
    marked = 0
    for first, last, count in re.findall(r"<title>frames? (\d+)(?: to (\d+))?: (\d+) identity", svg.replace(",", "")):
        frames = slice(int(first) - 1, int(last or first))
        assert sum(idsw[frames]) == int(count)
        marked += int(count)
    assert marked == sum(idsw)
    assert f"{sum(tp):,} matched, {sum(fn):,} missed, {sum(fp):,} false" in svg
    bins = min(length, 140)
    for kind, counts in (("tp", tp), ("fn", fn), ("fp", fp)):
        if any(counts):
            area = points(svg, f"area {kind}")
            assert len(area) == 4 * bins and np.isfinite(area).all()
    heights = points(svg, "area tp")
    zero = heights[-1, 1]
    if length <= 140:
        top = zero - heights[: 2 * length : 2, 1]
        unit = top.max() / max(tp)
        np.testing.assert_allclose(top, unit * np.array(tp), atol=0.11)


def test_timeline_of_nothing():
    assert "in 0 frames" in timeline_plot(Timeline(tp=[], fn=[], fp=[], idsw=[]), "s")


# Pictures of moments


def rects(svg: str) -> dict[str, list[list[float]]]:
    found: dict[str, list[list[float]]] = {}
    for kind, *values in re.findall(r'<rect class="(\w+)" x="(\S+)" y="(\S+)" width="(\S+)" height="(\S+)"', svg):
        found.setdefault(kind, []).append([float(value) for value in values])
    return found


def test_boxes_are_drawn_by_what_happened(moment):
    svg = str(draw_moment(moment))
    found = rects(svg)
    assert found["gt"] == [[10, 10, 20, 30]] and found["missed"] == [[60, 10, 20, 30]]
    assert found["switch"] == [[11, 11, 20, 30]] and found["false"] == [[40, 50, 15, 10]]
    assert ">3 → 7</text>" in svg and 'aria-label="one, frame 3: ground truth 5 from 3 to 7"' in svg
    x, y, width, height = map(float, re.search(r'viewBox="(\S+) (\S+) (\S+) (\S+)"', svg).groups())
    for box in (box for boxes in found.values() for box in boxes):
        assert x <= box[0] and box[0] + box[2] <= x + width and y <= box[1] and box[1] + box[3] <= y + height


def test_labels_do_not_hide_each_other(moment):
    boxes = [(100, 100, 130, 180), (104, 102, 134, 182), (108, 104, 138, 184), (600, 300, 640, 400)]
    crowd = replace(
        moment,
        switches=tuple((i, 10 + i, 20 + i) for i in range(4)),
        gt=tuple(Drawn(id=i, box=box, state="gt") for i, box in enumerate(boxes)),
        predictions=tuple(Drawn(id=20 + i, box=box, state="switch") for i, box in enumerate(boxes)),
    )
    pills = np.array(
        rects(str(draw_moment(crowd, EmbeddedFrame(uri="data:image/jpeg;base64,", width=640, height=480))))["pill"]
    )
    assert len(pills) == 4
    assert (pills[:, 0] + pills[:, 2] <= 640).all() and (pills[:, :2] >= 0).all()
    low, high = pills[:, :2], pills[:, :2] + pills[:, 2:]
    touching = ((low[:, None] < high[None]) & (low[None] < high[:, None])).all(2)
    assert touching.sum() == 4, "each touches only itself"


def colour(step: int) -> tuple[int, int, int]:
    return (40 * step % 256, 255 - 30 * step, 90 if step % 2 else 200)


def paint(path: Path, step: int, size: tuple[int, int] = (96, 64)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour(step)).save(path)


def decoded(uri: str) -> Image.Image:
    kind, data = uri.split(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def numbered(root: Path) -> str:
    for step in range(6):
        paint(root / "one" / "img1" / f"{step + 1:06d}.jpg", step)
    (root / "one" / "gt").mkdir()
    (root / "one" / "gt" / "gt.txt").write_text("1,1,1,1,1,1\n")
    return str(root)


def with_gaps(root: Path) -> str:
    numbered(root)
    (root / "one" / "img1" / "000001.jpg").unlink()
    return str(root)


def by_place(root: Path) -> str:
    for step in range(6):
        paint(root / "one" / f"frame{10 * step:04d}.png", step)
        paint(root / "one" / "other" / f"{step}.png", step + 1)
    return str(root)


def own_folder(root: Path) -> str:
    numbered(root)
    return str(root / "one") + "/"


@pytest.mark.parametrize("layout", [numbered, with_gaps, by_place, own_folder])
def test_the_right_frame_is_found(layout: Callable[[Path], str], moment, tmp_path):
    with Frames(layout(tmp_path)) as frames:
        for step in (5, 2, 3):
            picture = frames.picture(replace(moment, frame=step))
            assert (picture.width, picture.height) == (96, 64)
            pixel = decoded(picture.uri).getpixel((40, 30))
            assert np.abs(np.subtract(pixel, colour(step))).max() < 8


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("val/data/one/f7.jpg", "val/data/one/f7.jpg"),
        ("val/data/one/f7.jpg", "one/f7.jpg"),
        ("f7.jpg", "seq/one/f7.jpg"),
    ],
)
def test_a_named_frame_is_found(name, place, moment, tmp_path):
    paint(tmp_path / place, 3)
    paint(tmp_path / "seq" / "one" / "img1" / "000003.jpg", 1)
    with Frames(str(tmp_path)) as frames:
        picture = frames.picture(replace(moment, sequence="seq/one", frame_name=name))
        assert np.abs(np.subtract(decoded(picture.uri).getpixel((40, 30)), colour(3))).max() < 8


def test_a_name_alone_is_not_taken_from_elsewhere(moment, tmp_path):
    paint(tmp_path / "f7.jpg", 3)
    with Frames(str(tmp_path)) as frames, pytest.raises(NoPicture, match=r"no val/one/f7\.jpg under"):
        frames.picture(replace(moment, frame_name="val/one/f7.jpg"))


@pytest.mark.parametrize("place", ["one.mp4", "one/one.mp4", "whole.mp4"])
def test_frames_of_a_video(place, moment, tmp_path):
    from trackmill.pipeline.media.videos import VideoReader

    path = make_media_video(tmp_path / place, num_frames=20, size=(64, 96))
    with path.open("rb") as handle:
        reader = VideoReader(handle, "video", max_pixels=10**6, longest_side=960)
        wanted = {frame.index: frame.image for frame in reader.read([3, 11, 17])}
        reader.close()
    root = str(path) if place == "whole.mp4" else str(tmp_path)
    with Frames(root, only="one") as frames:
        for step in (3, 17, 11):
            picture = decoded(frames.picture(replace(moment, frame=step)).uri)
            distances = {i: np.abs(np.asarray(picture, float) - image).mean() for i, image in wanted.items()}
            assert min(distances, key=distances.__getitem__) == step
        with pytest.raises(NoPicture, match="ends early"):
            frames.picture(replace(moment, frame=20))


def test_pictures_are_made_small_and_turned_upright(moment, tmp_path):
    wide = Image.new("RGB", (3000, 1000), (10, 200, 10))
    wide.paste((200, 10, 10), (0, 0, 1500, 1000))
    exif = Image.Exif()
    exif[0x0112] = 6
    for place, extra in (("one/img1/3.jpg", {}), ("two/img1/3.jpg", {"exif": exif})):
        (tmp_path / place).parent.mkdir(parents=True)
        wide.save(tmp_path / place, **extra)
    with Frames(str(tmp_path)) as frames:
        plain, turned = (frames.picture(replace(moment, sequence=name)) for name in ("one", "two"))
    assert (plain.width, plain.height, decoded(plain.uri).size) == (3000, 1000, (LONGEST_SIDE, 320))
    assert (turned.width, turned.height, decoded(turned.uri).size) == (1000, 3000, (320, LONGEST_SIDE))
    red, _, _ = decoded(turned.uri).getpixel((160, 50))
    assert red > 150, "the left half is on top"


def test_pictures_from_a_store(moment):
    out = io.BytesIO()
    Image.new("RGB", (20, 10), colour(2)).save(out, "PNG")
    fsspec.filesystem("memory").pipe_file("/stored/one/img1/000003.png", out.getvalue())
    with Frames("memory://stored") as frames:
        assert frames.picture(moment).width == 20


def bomb() -> bytes:
    """A PNG whose header promises more pixels than anyone has."""
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunks = [b"IHDR" + header, b"IDAT" + zlib.compress(bytes(1000))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


def jpeg() -> bytes:
    out = io.BytesIO()
    Image.effect_noise((200, 200), 60).convert("RGB").save(out, "JPEG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "3.jpg is no picture"),
        (b"not a picture", "3.jpg is no picture"),
        (jpeg()[:-2000], "3.jpg: image file is truncated"),
        (bomb(), "3.jpg: [^<]*pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "3.jpg is no picture"),
    ],
    ids=["empty", "text", "truncated", "bomb", "postscript"],
)
def test_a_broken_picture_leaves_the_boxes(data, reason, report, tmp_path):
    (tmp_path / "one" / "img1").mkdir(parents=True)
    (tmp_path / "one" / "img1" / "000003.jpg").write_bytes(data)
    html = page(report, str(tmp_path))
    assert re.search(rf"no picture: [^<]*{reason}", html)
    assert 'class="moment schematic"' in html and "<image" not in html


@pytest.mark.parametrize(
    ("moment_name", "sequence", "reason"),
    [
        ("../secret.jpg", "one", "no path below"),
        ("/etc/passwd", "one", "no path below"),
        ("a/../../secret.jpg", "one", "no path below"),
        ("memory://x/y.jpg", "one", "no path below"),
        ("", "../secret", "no path below"),
        ("", "*", "neither pictures nor a video"),
        ("", "", "no path below"),
        ("", "a\x00b", "not a URL"),
        ("x\n.jpg", "one", r"no x\?\.jpg under"),
        ("none.jpg", "one", "no none.jpg"),
        ("", "two", "neither pictures nor a video"),
        ("", "three", "number 3"),
        ("", "four", "only 1 pictures"),
    ],
)
def test_where_there_is_no_picture(moment_name, sequence, reason, moment, tmp_path):
    paint(tmp_path / "secret.jpg", 0)
    paint(tmp_path / "secret" / "img1" / "3.jpg", 0)
    root = tmp_path / "root"
    paint(root / "one" / "img1" / "000003.jpg", 0)
    paint(root / "three" / "img1" / "000001.jpg", 0)
    paint(root / "four" / "000003.jpg", 0)
    with Frames(str(root)) as frames, pytest.raises(NoPicture, match=reason) as caught:
        frames.picture(replace(moment, frame_name=moment_name, sequence=sequence))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("root", ["/nowhere/at/all", "http://127.0.0.1:1/frames", "pipe:x", "nosuch://x", ""])
def test_a_root_that_is_not_there_is_told_and_no_error(root, report, monkeypatch):
    monkeypatch.setattr("trackmill.pipeline.storage.retries.ATTEMPTS", 1)
    with Frames(root) as frames, pytest.raises(NoPicture):
        frames.picture(report.moments[0])


def test_a_store_that_is_down_is_waited_for_once(moment, monkeypatch):
    calls = []

    def down(url: str, **_: object) -> bytes:
        calls.append(url)
        raise OSError("gave up after 5 attempts")

    monkeypatch.setattr("trackmill.pipeline.evaluation.report.pictures.exists", lambda url: False)
    monkeypatch.setattr("trackmill.pipeline.evaluation.report.pictures.read_bytes", down)
    with Frames("https://store.example/frames") as frames:
        for step in range(3):
            with pytest.raises(NoPicture, match="gave up"):
                frames.picture(replace(moment, frame_name=f"one/{step}.jpg"))
    assert calls == ["https://store.example/frames/one/0.jpg"]


def test_at_most_so_many_moments_worst_first(report, moment):
    mild = [replace(moment, frame=i) for i in range(40)]
    worst = replace(moment, frame=99, switches=((5, 3, 7), (6, 1, 2)))
    report.moments = [*mild, worst]
    html = page(report)
    shown = re.findall(r"<h3>one · frame (\d+) · person</h3>", html)
    assert shown == ["100", *map(str, range(1, MAX_MOMENTS))]
    assert f"The {MAX_MOMENTS} worst of the frames" in html
    assert "ground truth 5 was <b>3</b>, became <b>7</b>" in html


# Moments


def test_a_swap_by_hand():
    here, there, away = (0, 0, 10, 10), (100, 0, 110, 10), (300, 300, 310, 310)
    gt = make_tracks([0, 0, 1, 1, 2, 2], [1, 2, 1, 2, 1, 2], [here, there] * 3)
    predictions = make_tracks([0, 0, 1, 1, 1, 2], [50, 60, 60, 50, 70, 50], [here, there, here, there, away, here])
    overlaps = find_overlaps(gt, predictions, 4)
    timeline, moments = describe_moments(
        "s", gt, predictions, overlaps, clear(overlaps), "person", [f"{i}.jpg" for i in range(4)]
    )
    assert timeline == Timeline(tp=[2, 2, 1, 0], fn=[0, 0, 1, 0], fp=[0, 1, 0, 0], idsw=[0, 2, 1, 0])
    first, second = moments
    assert (first.sequence, first.frame, first.frame_name, first.label) == ("s", 1, "1.jpg", "person")
    assert first.switches == ((1, 50, 60), (2, 60, 50))
    assert first.gt == (Drawn(id=1, box=here, state="gt"), Drawn(id=2, box=there, state="gt"))
    assert [(drawn.id, drawn.state) for drawn in first.predictions] == [(60, "switch"), (50, "switch"), (70, "false")]
    assert second.frame == 2 and second.switches == ((1, 60, 50),)
    assert [(drawn.id, drawn.state) for drawn in second.gt] == [(1, "gt"), (2, "missed")]


@pytest.mark.parametrize("seed", range(4))
def test_moments_tell_what_clear_counted(seed):
    video = make_video(seed=seed, num_frames=60, num_objects=10)
    everything = find_overlaps(video.gt, video.predictions, video.num_frames)
    keep_gt, keep_pred = video.gt.ids % 5 > 0, video.predictions.ids % 7 > 0
    overlaps = everything.select(keep_gt, keep_pred)
    gt, predictions = video.gt.select(keep_gt), video.predictions.select(keep_pred)
    counts = clear(overlaps)
    timeline, moments = describe_moments("s", gt, predictions, overlaps, counts, "c", most=1000)
    assert [sum(timeline.tp), sum(timeline.fn), sum(timeline.fp), sum(timeline.idsw)] == [
        *(counts.tp, counts.fn, counts.fp, counts.idsw)
    ]
    assert counts.idsw > 0 and len(moments) == sum(count > 0 for count in timeline.idsw)
    # Rebuilt in plain loops from the matches alone.
    last: dict[int, int] = {}
    switches: dict[int, list[tuple[int, int, int]]] = {}
    pairs: dict[int, dict[int, int]] = {frame: {} for frame in range(video.num_frames)}
    for row_gt, row_pred in zip(counts.matches.rows_gt, counts.matches.rows_pred):
        frame, who, whom = int(gt.frames[row_gt]), int(gt.ids[row_gt]), int(predictions.ids[row_pred])
        pairs[frame][who] = whom
        if last.get(who, whom) != whom:
            switches.setdefault(frame, []).append((who, last[who], whom))
        last[who] = whom
    assert {moment.frame: sorted(moment.switches) for moment in moments} == {f: sorted(s) for f, s in switches.items()}
    for moment in moments:
        rows = np.flatnonzero(gt.frames == moment.frame)
        assert [drawn.box for drawn in moment.gt] == [tuple(box) for box in gt.boxes[rows].tolist()]
        matched = pairs[moment.frame]
        assert {drawn.id: drawn.state for drawn in moment.gt} == {
            i: "gt" if i in matched else "missed" for i in gt.ids[rows].tolist()
        }
        new = {now for _, _, now in moment.switches}
        assert {drawn.id: drawn.state for drawn in moment.predictions} == {
            i: "switch" if i in new else "match" if i in matched.values() else "false"
            for i in predictions.ids[predictions.frames == moment.frame].tolist()
        }
    mistakes = np.array(timeline.fn) + timeline.fp
    ranks = [(-timeline.idsw[m.frame], -mistakes[m.frame], m.frame) for m in moments]
    assert ranks == sorted(ranks)
    assert describe_moments("s", gt, predictions, overlaps, counts, "c", most=2)[1] == moments[:2]
    assert (
        worst_first(reversed(moments))[0].frame
        == max((m for m in moments if ranks[moments.index(m)][:2] == ranks[0][:2]), key=lambda m: m.frame).frame
    )


def test_summed_counts_cannot_be_described():
    video = make_video(num_frames=5)
    overlaps = find_overlaps(video.gt, video.predictions, 5)
    counts = clear(overlaps)
    with pytest.raises(ValueError, match="before its counts are added"):
        describe_moments("s", video.gt, video.predictions, overlaps, counts + counts, "c")


def test_nothing_to_describe():
    nothing = make_tracks([], [], np.zeros((0, 4)))
    overlaps = find_overlaps(nothing, nothing, 3)
    zeros = [0, 0, 0]
    found = describe_moments("s", nothing, nothing, overlaps, clear(overlaps), "c")
    assert found == (Timeline(tp=zeros, fn=zeros, fp=zeros, idsw=zeros), [])


def test_timelines_of_classes_add_up():
    one, two = (
        Timeline(tp=[1, 0], fn=[0, 2], fp=[3, 0], idsw=[0, 1]),
        Timeline(tp=[1, 1], fn=[0, 1], fp=[0, 0], idsw=[1, 0]),
    )
    assert add_timelines([one, two]) == Timeline(tp=[2, 1], fn=[0, 3], fp=[3, 0], idsw=[1, 1])


@needs_data("mot15/PETS09-S2L1/img1")
def test_real_frames(report, moment):
    root = DATA / "mot15"
    report.sequences = {"PETS09-S2L1": dict(HOTA), "TUD-Stadtmitte": dict(HOTA), "ETH-Bahnhof": dict(HOTA)}
    report.moments = [replace(moment, sequence=name, frame=24) for name in report.sequences]
    html = page(report, str(root))
    assert re.findall(r'<svg class="moment (\w+)" viewBox="(\S+ \S+ \S+ \S+)"', html)[:2] == [
        *(("photo", "0 0 768 576"), ("photo", "0 0 640 480"))
    ]
    assert html.count("no picture: neither pictures nor a video of ETH-Bahnhof") == 1
