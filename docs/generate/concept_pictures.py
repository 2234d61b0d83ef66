"""The pictures of `docs/concepts.md`: one function each. `python docs/generate/concept_pictures.py` writes them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from generate.drawing import AMBER, BLUE, GREEN, RED, Drawing

FOLDER = Path(__file__).resolve().parents[1] / "pictures" / "concepts"


def item() -> Drawing:
    """Files become items."""
    d = Drawing("One picture is one item; a video becomes several items, one a clip; a broken file is an item as well")
    d.box(20, 30, 150, 36, "sa_1.jpg", BLUE)
    d.box(20, 82, 150, 36, "street.mp4, 3 min", BLUE)
    d.box(20, 134, 150, 36, "cut_short.jpg", RED)
    d.box(300, 30, 180, 36, "item: the picture", GREEN)
    for place in range(3):
        d.box(300 + 64 * place, 82, 56, 36, f"clip {place + 1}", GREEN)
    d.text(505, 105, "…")
    d.box(300, 134, 180, 36, "item, quarantined", RED, dashed=True)
    for y in (48, 100, 152):
        d.arrow(176, y, 292, y)
    d.text(590, 53, "read, mined, stored", soft=True)
    d.text(600, 105, "one item a clip", soft=True)
    d.text(590, 157, "its reason is written", soft=True)
    return d


def unit() -> Drawing:
    """Items are cut into units; a unit becomes a shard."""
    d = Drawing("Consecutive items form a unit; one worker mines a unit; a unit becomes one shard and one receipt")
    colours = (BLUE, GREEN, AMBER)
    for place in range(12):
        d.box(30 + 40 * place, 30, 32, 32, str(place + 1), colours[place // 4])
    for place, colour in enumerate(colours):
        x = 30 + 160 * place
        d.arrow(x + 76, 66, x + 76, 96)
        d.box(x, 100, 152, 32, f"unit {place}", colour)
        d.arrow(x + 76, 134, x + 76, 158)
        d.text(x + 76, 178, f"part-0000000{place}.tar", size=13)
    d.text(530, 51, "items, in the plan's order", "start", soft=True)
    d.text(530, 121, "what one worker does", "start", soft=True)
    d.text(530, 178, "one shard each", "start", soft=True)
    return d


def plan() -> Drawing:
    """A later run adds to the plan."""
    d = Drawing("The first run plans units 0 to 2; a later run finds new files and adds unit 3; nothing moves")
    d.box(30, 34, 330, 44, "plan-0000: units 0, 1, 2", BLUE)
    d.box(370, 34, 160, 44, "plan-0001: unit 3", GREEN)
    d.text(195, 24, "first run", soft=True, size=13)
    d.text(450, 24, "a later run, with more files", soft=True, size=13)
    for place in range(3):
        d.box(30 + 110 * place, 112, 100, 40, f"unit {place}\ndone", BLUE)
    d.box(370, 112, 100, 40, "unit 3\nto do", GREEN, dashed=True)
    d.text(550, 61, "never rewritten", "start", soft=True)
    d.text(550, 137, "only this is mined", "start", soft=True)
    d.text(195, 180, "receipts say what is done", soft=True)
    return d


def receipt() -> Drawing:
    """The receipt is written last."""
    d = Drawing(
        "A worker writes the shard first and the receipt last; killed before the receipt, the unit is done again"
    )
    d.box(20, 36, 120, 40, "mine items", BLUE)
    d.box(190, 36, 150, 40, "write the shard", BLUE)
    d.box(390, 36, 150, 40, "write the receipt", GREEN)
    d.box(590, 36, 110, 40, "unit done", GREEN)
    for x in (142, 342, 542):
        d.arrow(x, 56, x + 46, 56)
    d.box(120, 124, 480, 40, "killed anywhere here: the unit is done again, with the same bytes", RED, dashed=True)
    d.arrow(80, 80, 160, 122, dashed=True)
    d.arrow(265, 80, 265, 122, dashed=True)
    d.arrow(465, 122, 430, 80, dashed=True)
    return d


def fingerprint() -> Drawing:
    """What enters the fingerprint."""
    d = Drawing("Settings and code that decide bytes enter the fingerprint; how the run is carried out does not")
    d.box(20, 24, 250, 66, "decides bytes:\nread.*, shards.*, the proposer,\nits weights by their SHA-256", BLUE)
    d.box(20, 112, 250, 66, "decides none:\nworkers, Ray or not, parts,\ntime-outs, where it runs", dashed=True)
    d.box(340, 40, 130, 36, "SHA-256", AMBER)
    d.arrow(272, 57, 334, 57)
    d.box(540, 40, 160, 36, "e71bb12cfef82e5c", GREEN)
    d.arrow(472, 57, 534, 57)
    d.text(530, 120, "the same: the run goes on in this output", soft=True)
    d.text(530, 144, "another: refused, and the setting is named", soft=True)
    return d


def sidecar() -> Drawing:
    """Tables beside shards."""
    d = Drawing("A sidecar is a table beside the shards, one part for each shard, bound to it by the shard's SHA-256")
    for place in range(3):
        x = 30 + 160 * place
        d.box(x, 28, 140, 40, f"shard {place}", BLUE)
        d.box(x, 108, 140, 32, f"part {place}", GREEN)
        d.box(x, 148, 140, 32, f"part {place}", AMBER)
        d.arrow(x + 70, 104, x + 70, 72)
    d.text(520, 53, "pictures, masks; untouched", "start", soft=True, size=13)
    d.text(520, 129, "sidecar “chains”", "start", size=13)
    d.text(520, 169, "sidecar “negatives”", "start", size=13)
    return d


def stream() -> Drawing:
    """Streams of an epoch, and who reads them."""
    d = Drawing(
        "An epoch is cut into a fixed number of streams; ranks own whole streams, so their number changes no batch"
    )
    for place in range(4):
        y = 22 + 40 * place
        d.box(30, y, 300, 30, f"stream {place}: samples in a fixed order", BLUE if place < 2 else GREEN)
    d.box(430, 30, 110, 54, "rank 0", BLUE)
    d.box(430, 110, 110, 54, "rank 1", GREEN)
    for y0, y1 in ((37, 48), (77, 66), (117, 128), (157, 146)):
        d.arrow(332, y0, 424, y1)
    d.box(590, 70, 110, 54, "the same\nbatches", AMBER)
    d.arrow(542, 57, 586, 88)
    d.arrow(542, 137, 586, 106)
    d.text(360, 190, "four ranks would own one stream each; one rank owns all four", soft=True, size=13)
    return d


def window() -> Drawing:
    """A window moves over a stream."""
    d = Drawing(
        "Samples are shuffled within a window that moves over the shards of a stream, so few shards are open at once"
    )
    for place in range(10):
        d.box(30 + 66 * place, 40, 58, 34, f"shard {place}", AMBER if 3 <= place < 6 else BLUE)
    d.frame(223, 30, 201, 54)
    d.text(325, 22, "the window: shuffled among each other", size=13)
    d.arrow(440, 100, 520, 100)
    d.text(325, 105, "moves on", soft=True)
    d.text(120, 140, "read, and closed", soft=True)
    d.text(325, 140, "open now", soft=True)
    d.text(560, 140, "not fetched yet", soft=True)
    d.text(360, 180, "data.window: larger mixes better, and holds more shards open", soft=True, size=13)
    return d


PICTURES: dict[str, Callable[[], Drawing]] = {
    each.__name__: each for each in (item, unit, plan, receipt, fingerprint, sidecar, stream, window)
}


def main() -> None:
    """Write all of them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        (FOLDER / f"{name}.svg").write_text(draw().svg())


if __name__ == "__main__":
    main()
