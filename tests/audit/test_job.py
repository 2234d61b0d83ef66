"""`trackmill audit` from the command line: the report, the sheet, damage, and mistakes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from rich.cells import cell_len

from tests.audit.producers import HOSTILE
from tests.make_dataset import make_dataset
from trackmill.jobs.audit_negatives import main
from trackmill.jobs.inspect_shards import main as inspect
from trackmill.pipeline.media.drawing.palette import identity_colour
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.reader import open_dataset
from trackmill.pipeline.sidecars.about import read_about
from trackmill.pipeline.sidecars.part import part_bytes, read_part
from trackmill.pipeline.sidecars.run import make_sidecar

PRODUCER = "tests.audit.producers:Scatter"
PARTS = ("part-00000000.parquet", "part-00000001.parquet")


@pytest.fixture
def root(tmp_path: Path) -> str:
    """Four pictures and a clip of ten frames, each frame with two negatives."""
    url = make_dataset(str(tmp_path / "set")).root
    make_sidecar(url, "negatives", PRODUCER)
    return url


def as_json(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    assert main([*words, "--json"]) == code
    values: dict[str, Any] = json.loads(capsys.readouterr().out)
    return values


def test_json(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, root)
    assert (found["negatives"], found["samples"], found["clips"], found["frames"]) == ("sidecar negatives", 5, 1, 14)
    assert (found["rows"], found["persistent"], found["chain_lengths"]["10"]) == (28, 10, 1)
    assert found["classes"]["thing"]["rows"] == found["classes"][HOSTILE]["rows"] == 14
    assert found["dropped"] == {"overlaps an object": 10}
    assert [each["label"] for each in found["shown"]["persistent"]] == [HOSTILE]
    assert len(found["shown"]["best"]) <= 24
    few = as_json(capsys, root, "--max-samples", "2", "--min-score", "0.5", "--show", "1")
    assert few["samples"] == 2 and few["rows"] < 14 and len(few["shown"]["best"]) == 1


def test_text_fits_and_a_hostile_name_does_nothing(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([root]) == 0
    out = capsys.readouterr().out
    assert all(cell_len(line) <= 80 for line in out.splitlines()[1:])  # the first one holds the path
    assert "\x1b" not in out and "persist" in out and "hints (rules of thumb" in out
    assert re.search(r"thing +14 +50 %", out)


def test_the_sheet(root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sheet.html"
    assert main([root, "--html", str(path)]) == 0
    capsys.readouterr()
    html = path.read_text()
    assert "default-src 'none'" in html and "<script" not in html and "&lt;script&gt;" in html and "\x1b" not in html
    assert set(re.findall(r'href="([a-z]+:[a-z]+/)', html)) == {"data:image/"}
    cards = html.count("<article>")
    assert cards == sum(map(len, as_json(capsys, root)["shown"].values())) > 3
    assert "persists: 10 of 10 frames, moves 0.0 lengths" in html and html.count('<div class="strip">') == 1
    key = re.search(r"--key (\S+) --sidecar negatives --overlay", html)
    assert key and inspect([root, "--key", key[1], "--sidecar", "negatives", "--overlay", str(tmp_path / "x.png")]) == 0


def test_inspect_shows_class_and_score(root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect([root]) == 0
    assert "sidecar negatives: 2 parts, " in capsys.readouterr().out
    assert inspect([root, "--stats"]) == 0
    out = capsys.readouterr().out
    assert "overlaps an object 10" in out and "thing 14" in out and "\x1b" not in out
    assert inspect([root, "--html", str(tmp_path / "x.html"), "--sidecar", "negatives"]) == 0
    html = (tmp_path / "x.html").read_text()
    assert ">thing 0.35</text>" in html and "0.70</text>" in html and html.count("<script") == 1
    key = next(row.key for row in open_dataset(root).stored)
    assert inspect([root, "--key", key, "--sidecar", "negatives", "--overlay", str(tmp_path / "x.png")]) == 0
    picture = np.asarray(Image.open(tmp_path / "x.png"))
    # The first class that is met, and the second one: a box of 12 x 10 pixels, and one at the border of 5 x 8.
    assert all((picture == identity_colour(number)).all(axis=2).sum() > 20 for number in (0, 1))


def test_records_where_there_is_no_sidecar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_dataset(str(tmp_path / "set")).root
    assert main([root, "--json"]) == 0
    out, err = capsys.readouterr()
    assert "there is no sidecar of negatives" in err
    found = json.loads(out)
    assert (found["rows"], found["frames"], set(found["classes"])) == (28, 14, {"(proposal)"})
    make_sidecar(root, "negatives", PRODUCER)
    assert as_json(capsys, root, "--proposals")["classes"] == found["classes"]
    assert as_json(capsys, f"{root}/shards")["rows"] == 28  # tars alone


@pytest.mark.parametrize("fault", ["cut", "gone", "shard"])
def test_what_cannot_be_read_is_named_and_the_rest_counted(
    root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    part = Path(root, "sidecars", "negatives", PARTS[0])
    if fault == "cut":
        part.write_bytes(part.read_bytes()[:-20])
    elif fault == "gone":
        part.unlink()
    else:
        shard = next(Path(root, "shards").glob("part-00000001*"))
        shard.write_bytes(b"\0" * shard.stat().st_size)
    sheet = str(tmp_path / "sheet.html")
    assert main([root, "--json", "--html", sheet]) == 3
    out, err = capsys.readouterr()
    named = "part-00000001" if fault == "shard" else f"sidecars/negatives/{PARTS[0]}"
    assert err.count("warning:") == 1 and named in err and named in Path(sheet).read_text()
    assert ("trackmill sidecar" in err) == (fault == "gone")
    assert json.loads(out)["samples"] == (4 if fault == "shard" else 1)


@pytest.mark.parametrize(("column", "value"), [("box", [60.0, 2, 90, 12]), ("score", float("nan"))])
def test_rows_that_cannot_be_are_named(
    root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], column: str, value: Any
) -> None:
    path = Path(root, "sidecars", "negatives", PARTS[0])
    part = read_part(str(path), PARTS[0], read_about(Layout(root), "negatives").columns)
    rows = part.table.to_pydict()
    rows[column][0] = value
    path.write_bytes(part_bytes(part.about, pa.table(rows, schema=part.table.schema.remove_metadata())))
    assert main([root, "--json", "--html", str(tmp_path / "x.html")]) == 3
    out, err = capsys.readouterr()
    assert f"rows of {rows['key'][0]} have a box outside its frame, or a score" in err and err.count("warning:") == 1
    assert json.loads(out)["samples"] == 4


def test_nothing_can_be_read(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    for part in PARTS:
        Path(root, "sidecars", "negatives", part).write_bytes(b"PAR1")
    assert main([root]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "delete it and make it again" in err


@pytest.mark.parametrize(
    ("settings", "rows", "hint"),
    [({"nothing": True}, 0, "There are no negatives at all"), ({"fail": "pic"}, 20, "")],
)
def test_empty_and_quarantined(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: dict[str, Any], rows: int, hint: str
) -> None:
    root = make_dataset(str(tmp_path / "set")).root
    make_sidecar(root, "negatives", PRODUCER, settings)
    found = as_json(capsys, root, "--html", str(tmp_path / "x.html"))
    assert found["rows"] == rows and hint in " ".join(found["hints"])
    assert found["quarantined"] == (4 if "fail" in settings else 0)
    assert main([root]) == 0
    assert ("ArithmeticError: nothing to see" in capsys.readouterr().out) == ("fail" in settings)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sidecar", "negatifs"], "no sidecar 'negatifs' (there are negatives, plain)"),
        (["--sidecar", "plain"], "an audit needs a column of boxes and a score; it has box (box), mean (float32)"),
        (["--sidecar", "plain", "--proposals"], "choose one"),
        (["--html", "tests"], "--html tests: is a folder; name the file"),
        (["--nms-iou", "0"], "--nms-iou: '0': Input should be greater than 0"),
    ],
)
def test_mistakes(root: str, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    make_sidecar(root, "plain", "tests.sidecars.producers:Brightness")
    assert main([root, *words]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
