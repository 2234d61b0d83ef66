"""The demonstration's report: one HTML page, complete in itself, of what was done and what came out.

Nothing is fetched and no script runs. Whatever the scores are, they are printed; the sentences about them follow from
the numbers.
"""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import av
import orjson
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from trackmill.pipeline.demo.chains import ChainCounts, show_chains
from trackmill.pipeline.demo.outcome import lanes, read_given, read_seen
from trackmill.pipeline.demo.settings import DemoSettings
from trackmill.pipeline.evaluation.report.html_parts import MEANINGS
from trackmill.pipeline.inspect.overlay import draw_frame
from trackmill.pipeline.inspect.selection import select_rows
from trackmill.pipeline.shards.reader import open_dataset, read_row
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.pipeline.storage.urls import basename, join
from trackmill.pipeline.training.telemetry.lines import read_lines
from trackmill.pipeline.training.telemetry.plot import as_line, draw, tick_label

SCORES = ("HOTA", "AssA", "IDF1", "IDSW", "DetA")
VIDEO_RULES = {"trained": "appearance", "bytetrack": "ByteTrack"}
"""Folder of its results, and what the page calls it."""
VIDEO_SCORES = ("IDF1", "AssA", "IDSW", "DetA")
LINKING = ("rank1@5", "rank1@20", "rank1@50", "mAP@20", "AssA")
_CURVES = {
    "loss": "contrast between the regions of a batch",
    "similarity_gap": "mean cosine of positive pairs minus that of negative ones",
    "lr": "of each step, by the schedule",
    "grad_norm": "norm of all gradients before clipping",
}
_CHAINS = (("people", "People, found by the packaged detector", 4), ("parts", "Mined regions, which are trained on", 6))
"""Sidecar, heading, and how many of its chains are shown."""

_THUMBNAILS, _THUMBNAIL_WIDTH, _JPEG_QUALITY = 12, 360, 80
_NO_ROOM = 95
_MAX_VIDEO_BYTES = 5 << 20
_MAX_VIDEOS_BYTES = 9 << 20
"""A longer video, and those after so many bytes, are linked instead; a third more is what base64 makes of them."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of a table of scores, as text; `clear` is `up` or `down` where an interval says so."""

    name: str
    meaning: str
    untrained: str
    trained: str
    difference: str
    clear: str = ""
    interval: str = ""


@dataclass(frozen=True, slots=True)
class _Bar:
    """One bar of a comparison: of which model, its value and its width in percent, as text."""

    model: str
    value: str
    width: str


@dataclass(frozen=True, slots=True)
class _Rule:
    """What one rule made of the people in the real video, as text."""

    name: str
    found: str
    identities: str
    kept: str
    scores: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _People:
    """The people in the real video, and what became of them; `best_frame`, from 0, shows one in the middle of a way."""

    number: int
    boxes: int
    rules: list[_Rule]
    lanes: Markup
    best_frame: int


@dataclass(frozen=True, slots=True)
class _Film:
    """A video; `data` is its data URI, empty where it is only linked, `poster` that of what stands there at first."""

    caption: str
    link: str
    data: str
    poster: str = ""


def write_report(
    root: str, run: str, settings: DemoSettings, stages: Sequence[tuple[str, str, Mapping[str, Any]]]
) -> int:
    """Write ROOT/report.html.

    Args:
        root: of the demonstration.
        run: folder of the training run in it.
        settings: it was made with.
        stages: name, what it does, and its stamp (`seconds`, `commands`) of every stage before this one.

    Returns:
        Length of the file in bytes.

    Raises:
        OSError: a result could not be read or the page not be written.
        BadShard: a mined sample is damaged.
    """
    untrained, trained, linking = (_json(root, name) for name in ("untrained", "trained", "association"))
    people = _people(root)
    rows = [row for row in read_lines(join(run, "metrics.jsonl")) if "step" in row]
    environment = Environment(
        loader=PackageLoader("trackmill.pipeline.demo", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    dataset = open_dataset(join(root, "mined"))
    page = environment.get_template("report.html.j2").render(
        settings=settings,
        people=people,
        people_scores=VIDEO_SCORES,
        bars=_bars(untrained, trained, linking),
        run=basename(run),
        chains=[_chains(root, name, title, most) for name, title, most in _CHAINS],
        verdict=verdict(linking),
        stages=[
            (name, summary, _time(stamp.get("seconds")), [redact(line) for line in stamp.get("commands", [])])
            for name, summary, stamp in stages
        ],
        total=_time(sum(float(stamp.get("seconds", 0)) for _, _, stamp in stages)),
        scores=[_row(name, untrained["metrics"], trained["metrics"]) for name in SCORES],
        sequences=[
            (name, *(_percent(scores["sequences"][name].get("HOTA")) for scores in (untrained, trained)))
            for name in trained["sequences"]
        ],
        linking=_linking(linking),
        curves=_curves(rows),
        num_steps=len(rows),
        thumbnails=_thumbnails(root),
        num_samples=len(dataset.stored),
        num_frames=sum(row.frames for row in dataset.stored),
        num_proposals=sum(row.proposals for row in dataset.stored),
        films=_films(root, settings, people),
    )
    html = page.encode("utf-8", "replace")
    publish_bytes(join(root, "report.html"), html)
    return len(html)


def verdict(linking: Mapping[str, Any]) -> str:
    """What the paired intervals of rank-1 say, in words."""
    intervals = linking["settings"]["against"]["intervals"]
    compared = {name: intervals[name] for name in intervals if name.startswith("rank1@") and intervals[name]}
    if not compared:
        return "Nothing could be compared: no object is there twice."
    clear = {
        name: 1 if each["low"] > 0 else -1 for name, each in compared.items() if each["low"] > 0 or each["high"] < 0
    }
    if not clear:
        if min(min(each["first"], each["second"]) for each in compared.values()) >= _NO_ROOM:
            why = f"Both stand above {_NO_ROOM} % already: these sequences leave no room to tell them apart."
        else:
            why = "So short a training on so few pictures cannot be expected to do more."
        return f"Training made no clear difference: all 95 % intervals of rank-1 contain 0. {why}"
    words = [f"{'up' if way > 0 else 'down'} {name.partition('@')[2]} frames apart" for name, way in clear.items()]
    rest = "" if len(clear) == len(compared) else "; at the other gaps there is no clear difference"
    return f"By its 95 % intervals, training moved rank-1 {' and '.join(words)}{rest}."


def _json(root: str, name: str) -> dict[str, Any]:
    return dict(orjson.loads(read_bytes(join(root, "scores", f"{name}.json"))))


def _people(root: str) -> _People:
    """Of the real video: who was annotated, and what each rule made of them."""
    seen = read_seen(join(root, "video", "bikes", "gt", "gt.txt"))
    rules, given = [], []
    for rule, name in VIDEO_RULES.items():
        each = read_given(seen, join(root, "video_tracks", rule, "bikes.txt"))
        metrics = _json(root, f"video_{rule}")["metrics"]
        kept = f"{each.kept} of {len(seen.people)}"
        scores = tuple(_percent(metrics.get(score)) for score in VIDEO_SCORES)
        rules.append(_Rule(name, f"{each.found} of {len(seen.rows)}", f"{each.num_identities}", kept, scores))
        given.append((name, each))
    num_frames = len(_json(root, "video_trained")["timelines"]["bikes"]["TP"])
    longest = max(map(seen.frames, seen.people), key=len)
    best = int(longest[2 * len(longest) // 3]) - 1
    return _People(len(seen.people), len(seen.rows), rules, lanes(seen, given, num_frames), best)


def _bars(
    untrained: Mapping[str, Any], trained: Mapping[str, Any], linking: Mapping[str, Any]
) -> list[tuple[str, str, list[_Bar]]]:
    """What training changed, in three comparisons: what, what that means, one bar untrained and one trained."""
    against = linking["settings"]["against"]["metrics"]
    rows = [
        ("AssA", "how well whole tracks agree", untrained["metrics"], trained["metrics"], "AssA"),
        ("IDF1", "share of boxes that carry the right identity", untrained["metrics"], trained["metrics"], "IDF1"),
        ("rank-1", "the most similar box 50 frames later is the same object", against, linking["metrics"], "rank1@50"),
    ]
    return [
        (
            title,
            meaning,
            [
                _Bar("untrained", _percent(before.get(key)), _width(before.get(key))),
                _Bar("trained", _percent(after.get(key)), _width(after.get(key))),
            ],
        )
        for title, meaning, before, after, key in rows
    ]


def _width(value: float | None) -> str:
    """Of a bar, in percent of the whole."""
    return f"{min(max(value or 0.0, 0.0), 100.0):.1f}"


def _chains(root: str, name: str, title: str, most: int) -> tuple[str, ChainCounts, list[tuple[str, str]]]:
    """Title, counts, and the longest chains: caption, data URI."""
    counts, strips = show_chains(join(root, "mined"), name, most)
    shown = [(f"{strip.source}, {strip.frames} frames", _data_uri("image/jpeg", strip.jpeg)) for strip in strips]
    return title, counts, shown


def _row(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> _Row:
    first, second = before.get(name), after.get(name)
    meaning = MEANINGS.get(name, "")
    if first is None or second is None:
        return _Row(name, meaning, _percent(first), _percent(second), "–")
    return _Row(name, meaning, _percent(first), _percent(second), _signed(second - first))


def _linking(linking: Mapping[str, Any]) -> list[_Row]:
    against = linking["settings"]["against"]
    rows = []
    for name in LINKING:
        interval = against["intervals"].get(name)
        first, second = against["metrics"].get(name), linking["metrics"].get(name)
        what, _, gap = name.partition("@")
        title = f"{'rank-1' if what == 'rank1' else what}, {gap} frames apart" if gap else f"{what}, every 10th frame"
        if interval is None:
            rows.append(_Row(title, "", _percent(first), _percent(second), "–"))
            continue
        spread = f"{_signed(interval['low'])} to {_signed(interval['high'])}"
        way = "up" if interval["low"] > 0 else "down" if interval["high"] < 0 else ""
        rows.append(_Row(title, "", _percent(first), _percent(second), _signed(interval["difference"]), way, spread))
    return rows


def _percent(value: float | int | None) -> str:
    if value is None:
        return "–"
    return f"{value:,d}" if isinstance(value, int) else f"{value:.1f}"


def _signed(value: float | int) -> str:
    shown = f"{value:+d}" if isinstance(value, int) else f"{value:+.1f}"
    return shown[1:] if not float(shown) else shown


def _time(seconds: Any) -> str:
    if seconds is None:
        return "–"
    whole = round(float(seconds))
    return f"{whole} s" if whole < 100 else f"{whole // 60} min {whole % 60} s"


def _curves(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str, Markup]]:
    """Title, meaning, last value, plot."""
    found = []
    for name, meaning in _CURVES.items():
        values = [row.get(name) for row in rows]
        if known := [value for value in values if value is not None]:
            title = "learning rate" if name == "lr" else name.replace("_", " ")
            line = as_line([row["step"] for row in rows], values)
            last = tick_label(known[-1])
            found.append((title, meaning, last, draw({name: line}, f"{title} over the steps, {last} at the end")))
    return found


def _thumbnails(root: str) -> list[tuple[str, str, str]]:
    """Name, caption, data URI."""
    dataset = open_dataset(join(root, "mined"))
    found = []
    for row in select_rows(dataset.stored, _THUMBNAILS):
        sample = read_row(dataset, row)
        middle = len(sample.record.frames) // 2
        picture = draw_frame(sample, middle, ("proposals", "masks"), width=_THUMBNAIL_WIDTH)
        out = io.BytesIO()
        Image.fromarray(picture).save(out, "JPEG", quality=_JPEG_QUALITY)
        count = len(sample.record.frames)
        what = "photograph" if count == 1 else f"clip, {count} frames"
        name = redact(sample.record.origin.uri).rsplit("/", 1)[-1]
        found.append((name, f"{what}, {row.proposals:,} proposals", _data_uri("image/jpeg", out.getvalue())))
    return found


def _films(root: str, settings: DemoSettings, people: _People) -> list[tuple[str, list[_Film]]]:
    """Films by heading: the real video by each rule, then each photograph with both models."""
    wanted = [("bikes", [(name, f"video_tracks/{rule}/bikes.mp4") for rule, name in VIDEO_RULES.items()])]
    wanted += [
        (name, [(model, f"tracks/{model}/{name}.mp4") for model in ("untrained", "trained")])
        for name in settings.photographs
    ]
    left = _MAX_VIDEOS_BYTES
    groups: list[tuple[str, list[_Film]]] = []
    for heading, films in wanted:
        group = []
        for caption, link in films:
            content = read_bytes(join(root, link))
            embedded = len(content) <= min(_MAX_VIDEO_BYTES, left)
            left -= len(content) if embedded else 0
            data = _data_uri("video/mp4", content) if embedded else ""
            group.append(_Film(caption, link, data, _poster(content, people.best_frame) if not groups else ""))
        groups.append((heading, group))
    return groups


def _poster(video: bytes, frame: int) -> str:
    """A frame of a video, from 0, as a data URI; "" where it has fewer."""
    with av.open(io.BytesIO(video), "r") as container:
        for picture in itertools.islice(container.decode(video=0), frame, frame + 1):
            out = io.BytesIO()
            Image.fromarray(picture.to_ndarray(format="rgb24")).save(out, "JPEG", quality=_JPEG_QUALITY)
            return _data_uri("image/jpeg", out.getvalue())
    return ""


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
