"""Source `crowdhuman`: pictures of crowds, whose people stand in `annotation_train.odgt` and `annotation_val.odgt`.

An odgt file has one JSON object a line: `ID`, which is the name of the picture `ID.jpg`, and `gtboxes` of `tag` person
or mask, each with `fbox` (the full body, which may leave the picture), `vbox` (what is seen of it) and `hbox` (the
head). Pictures lie in `Images/`, wherever that is below the input: the zips of the publishers unpack to one such folder
each, and people move them to `CrowdHuman_train/Images`.

Every person is an object with an identity of its own picture: nobody is in two pictures. People with `extra.ignore`
and what is tagged `mask` are regions to ignore: no objects, and no pseudo-negatives either. Shards do not hold those
regions, so to a trainer they are background, as to trackers that are published with training on CrowdHuman.

`source_settings.box` chooses the full box (the default, which multi-object trackers train on) or the visible one. Full
boxes are cut at the border of the picture, or kept with `read.amodal`.
"""

from __future__ import annotations

import logging
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import orjson
from pydantic import Field

from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.media.fetching import fetch_bytes, shown
from trackmill.pipeline.sources.annotated_pictures import (
    annotated_picture,
    begun_without_annotations,
    leave_out_others,
    raise_planned_problem,
)
from trackmill.pipeline.sources.base import Claim, Source, file_item
from trackmill.pipeline.sources.crowdhuman_boxes import crowdhuman_annotations
from trackmill.pipeline.sources.odgt_lines import MAX_LINE_BYTES, OdgtIndex, OdgtLine, index_odgt, parse_line
from trackmill.pipeline.sources.picture_names import PictureNames
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.list_files import FileInfo
from trackmill.pipeline.storage.names import escaped
from trackmill.pipeline.storage.urls import basename, dirname, join
from trackmill.schemas.config import Settings
from trackmill.schemas.media import Media, WorkItem

log = logging.getLogger("trackmill")

SUFFIX = ".odgt"


class CrowdHumanSettings(Settings):
    """What is read of each person."""

    box: Literal["full", "visible"] = Field(
        "full",
        description="Of CrowdHuman: the box of the full body, as multi-object trackers train on, or of what is visible "
        "of it.",
    )


class CrowdHuman(Source):
    """Pictures with boxes of people."""

    name = "crowdhuman"
    version = 1
    annotated = True
    looked_for = "annotation_train.odgt or annotation_val.odgt, with Images/ID.jpg"
    needs = r"(?i)[.]odgt$"
    suffixes = (SUFFIX,)
    Config = CrowdHumanSettings

    def claim(self, files: Sequence[FileInfo]) -> Claim:
        """One item a line; the odgt files are read for where their lines lie."""
        odgt = sorted(file.uri for file in files if file.uri.lower().endswith(SUFFIX))
        claim = Claim(used=set(odgt))
        if not odgt:
            return claim
        pictures = PictureNames(file.uri for file in files)
        taken: dict[str, str] = {}
        broken: list[str] = []
        for uri, index in zip(odgt, index_odgt(odgt), strict=True):
            broken += [dirname(uri)] if index.problem or index.nameless or not index.lines else []
            claim.items += self._items(uri, index, pictures, taken)
        begun = begun_without_annotations(self.planned, taken.keys(), self.name, explicit=self.explicit)
        claim.items = [item for item in claim.items if item.uri not in begun]
        taken = {uri: by for uri, by in taken.items() if uri not in begun}
        claim.used.update(taken)
        leave_out_others(claim, pictures, taken.keys(), odgt, broken)
        return claim

    def read(self, item: WorkItem) -> Media:
        """Decode a picture and parse its line."""
        details = orjson.loads(item.details)
        raise_planned_problem(item.source_id, details.get("problem", ""))
        offset, length = details["line"]
        where = f"{details['odgt']}: line {details['number']} ({shown(details['id'])})"
        data = fetch_bytes(details["odgt"], offset, length, max_bytes=MAX_LINE_BYTES + 1)
        if zlib.crc32(data) != details["checksum"]:
            raise BadItem(
                f"{where}: another line lies there now: the file was changed after the work was planned; run again "
                "with --only-quarantined, which looks at it anew"
            )
        line = parse_line(data, where)
        box = details["box"]
        amodal = self.settings.amodal and box == "full"
        return annotated_picture(
            item.uri,
            lambda height, width: crowdhuman_annotations(line, height, width, box, where, amodal=amodal),
            self.settings,
            amodal=amodal,
            license=self.settings.license or "unknown",
        )

    def _items(self, uri: str, index: OdgtIndex, pictures: PictureNames, taken: dict[str, str]) -> list[WorkItem]:
        """Items of one file; pictures that a file before it has are `taken`."""
        found: list[tuple[OdgtLine, str]] = []
        copies, again = 0, Counter[str]()
        for line in index.lines:
            there = pictures.find(f"{line.id}.jpg", uri) or pictures.find(f"{line.id}.png", uri)
            copies += len(there) > 1
            if there and there[0] in taken:
                again[taken[there[0]]] += 1
                continue
            found.append((line, there[0] if there else ""))
        here = Counter(dirname(picture) for _, picture in found if picture)
        items = self._problems(uri, index)
        if not here and index.lines and not again:
            log.warning(
                "%s: none of its %d pictures is in the input, so it is left out; give the folder that holds them, too",
                redact(uri),
                len(index.lines),
            )
            return items
        folder = here.most_common(1)[0][0] if here else join(dirname(uri), "Images")
        missing = sum(not picture for _, picture in found)
        if missing:
            log.warning("%s: %d of its %d pictures are missing", redact(uri), missing, len(index.lines))
        if copies:
            log.warning("%s: %d of its pictures are in the input more than once; one of each is mined", uri, copies)
        for other, count in again.items():
            log.warning("%s: %d of its pictures are those of %s, and mined once", redact(uri), count, redact(other))
        for line, picture in found:
            # Named after its picture even where that is missing, so that it is the same item once it is there.
            items.append(self._item(uri, line, picture or join(folder, escaped(f"{line.id}.jpg")), there=bool(picture)))
            if picture:
                taken[picture] = uri
        return items

    def _item(self, uri: str, line: OdgtLine, picture: str, *, there: bool) -> WorkItem:
        problem = f"{uri}: {line.problem}" if line.problem else ""
        if not there:
            problem = f"line {line.number} of {uri} is about this picture, but it is missing"
        assert isinstance(self.config, CrowdHumanSettings)
        details = {
            "odgt": uri,
            "line": [line.offset, line.length],
            "number": line.number,
            "id": line.id,
            "checksum": line.checksum,
            "box": self.config.box,
        }
        return file_item(self.name, picture, picture, line.id, details | ({"problem": problem} if problem else {}))

    def _problems(self, uri: str, index: OdgtIndex) -> list[WorkItem]:
        """An item for what is wrong with the file itself."""
        problems = [index.problem] if index.problem else []
        if index.nameless:
            more = f"; so are {index.nameless - 1} more lines" if index.nameless > 1 else ""
            problems.append(f"{index.first_nameless}; it is not known of which picture it is{more}")
        if not index.lines and not problems:
            problems.append("holds no line; there should be one JSON object for each picture")
        if not problems:
            return []
        return [file_item(self.name, uri, uri, basename(uri), {"problem": "; ".join(problems)})]
