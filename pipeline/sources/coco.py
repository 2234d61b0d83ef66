"""Source `coco`: pictures with boxes and masks in JSON files laid out like COCO's `instances_train2017.json`.

COCO, LVIS, Objects365, and what most labelling tools export: an object with `images` (`id`, `file_name`, `height`,
`width`), `annotations` (`image_id`, `category_id`, `bbox` as x, y, width, height, `segmentation`, `iscrowd`) and
`categories`. Several such files may be in one input. A file is walked once, whatever its size, for where the
annotations of each picture lie in it; a worker then reads those bytes and nothing else. Of a file in a remote store
that is one request an annotation, unless those of a picture stand together.

Pictures are found by `file_name` in the input: with the folders that it names, or by its last part where no other
picture of the file is called so. Several pictures of one name are told by folders called like the file (`train2017` of
`instances_train2017.json`), and then by how near they lie to it.

Every annotation is an object with an identity of its own picture. Masks are polygons, or run lengths, compressed or
not. `iscrowd` is a region to ignore: no object, and no pseudo-negative either; shards do not hold those regions.
`source_settings.classes` names the categories that count; all others are as if they were not annotated. Boxes are cut
at the border of the picture, or kept with `read.amodal`.

Files that list `videos` (COCO-VID, TAO) are read as single pictures, with a warning: who is who in two frames is not
read. Captions and panoptic segments are left alone, and so are key points of pictures whose `instances` are there.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence, Set

import orjson
from pydantic import Field

from trackmill.pipeline.formats.export_note import is_note
from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.media.fetching import shown
from trackmill.pipeline.sources.annotated_pictures import (
    annotated_picture,
    begun_without_annotations,
    leave_out_others,
    raise_planned_problem,
    shortly,
)
from trackmill.pipeline.sources.base import Claim, Source, file_item
from trackmill.pipeline.sources.coco_annotations import coco_annotations, fetch_records
from trackmill.pipeline.sources.coco_index import CocoIndex, index_coco, likely_coco
from trackmill.pipeline.sources.picture_names import PictureNames
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.list_files import FileInfo
from trackmill.pipeline.storage.names import escaped
from trackmill.pipeline.storage.urls import basename, dirname, join
from trackmill.schemas.config import Settings
from trackmill.schemas.errors import InputError
from trackmill.schemas.media import Annotations, Media, WorkItem
from trackmill.schemas.names import nearest

log = logging.getLogger("trackmill")

SUFFIX = ".json"


class CocoSettings(Settings):
    """Which annotations and pictures are read."""

    classes: str = Field(
        "", description="Of COCO's files: names of the categories that count, such as person or person,car; empty: all."
    )
    empty: bool = Field(True, description="Of COCO's files: also pictures without any object of these classes.")


class Coco(Source):
    """Pictures with boxes and masks.

    By itself it takes JSON files that begin like COCO's; named by `--source`, every JSON file.
    """

    name = "coco"
    version = 1
    annotated = True
    looked_for = "JSON files with images, annotations and categories, and the pictures that they name"
    needs = r"(?i)[.]json$"
    Config = CocoSettings

    def claim(self, files: Sequence[FileInfo]) -> Claim:
        """One item a listed picture; the JSON files are read for where their annotations lie."""
        found = sorted(file.uri for file in files if file.uri.lower().endswith(SUFFIX))
        # What `trackmill export-data` says of its own files is no file of COCO's.
        documents = [uri for uri in found if not is_note(uri)] if self.explicit else likely_coco(found)
        claim = Claim()
        if not documents:
            return claim
        # Of two files about the same pictures, instances come first.
        documents.sort(key=lambda uri: (not basename(uri).lower().startswith("instances"), uri))
        assert isinstance(self.config, CocoSettings)
        classes = frozenset(name.strip() for name in self.config.classes.split(",") if name.strip())
        indexes = dict(zip(documents, index_coco(documents, classes), strict=True))
        _check_classes(classes, indexes)
        pictures = PictureNames(file.uri for file in files)
        taken: dict[str, str] = {}
        for uri, index in indexes.items():
            items, used = self._items(uri, index, pictures, taken)
            claim.items += items
            claim.used.update(used)
        begun = begun_without_annotations(self.planned, taken.keys(), self.name, explicit=self.explicit)
        claim.items = [item for item in claim.items if item.uri not in begun]
        taken = {uri: by for uri, by in taken.items() if uri not in begun}
        claim.used.update(taken)
        broken = [uri for uri, index in indexes.items() if index.problem or index.faults]
        files_of = sorted({*taken.values(), *broken})
        leave_out_others(claim, pictures, taken.keys(), files_of, [_root(uri) for uri in broken])
        return claim

    def read(self, item: WorkItem) -> Media:
        """Decode a picture and its annotations."""
        details = orjson.loads(item.details)
        raise_planned_problem(item.source_id, details.get("problem", ""))
        numbers = details["annotations"]
        ranges = list(zip(numbers[::3], numbers[1::3], numbers[2::3]))
        records = fetch_records(details["json"], ranges, details["id"], details["checksum"])
        stated = tuple(details["size"])

        def annotate(height: int, width: int) -> Annotations:
            if all(stated) and stated != (height, width):
                raise BadItem(
                    f"{item.uri}: {details['json']} says {stated[0]} x {stated[1]} (height x width), the picture has "
                    f"{height} x {width}: it is another one, or was scaled or turned without its annotations"
                )
            numbered = [(number, record) for (_, _, number), record in zip(ranges, records, strict=True)]
            return coco_annotations(numbered, height, width, details["json"], amodal=self.settings.amodal)

        return annotated_picture(
            item.uri,
            annotate,
            self.settings,
            amodal=self.settings.amodal,
            license=self.settings.license or details["license"] or "unknown",
        )

    def _items(
        self, uri: str, index: CocoIndex, pictures: PictureNames, taken: dict[str, str]
    ) -> tuple[list[WorkItem], Set[str]]:
        """Items of one file, and itself if it is used; pictures that a file before it has are `taken`."""
        if index.boxless:
            log.warning("%s: its annotations have neither boxes nor masks, so it is left out", redact(uri))
            return [], set()
        found = _found(uri, index, pictures)
        again = Counter(taken[there[0]] for there in found if there and there[0] in taken)
        if again:
            _check_double(uri, sum(again.values()), again.most_common(1)[0][0])
            return [], {uri}
        if index.problem:
            # Without all annotations, objects of any picture may be missing.
            lost = {there[0]: uri for there in found if there}
            taken.update(lost)
            more = f"; none of its {len(lost)} pictures is mined" if lost else ""
            return [file_item(self.name, uri, uri, basename(uri), {"problem": index.problem + more})], {uri}
        self._tell(uri, index, found)
        items = [
            file_item(self.name, uri, f"{uri}#{number}", basename(uri), {"problem": fault})
            for number, fault in enumerate(index.faults)
        ]
        if index.pictures and not any(found):
            log.warning(
                "%s: none of its %d pictures is in the input, so it is left out; give the folder that holds them, too "
                "(such as %s)",
                redact(uri),
                len(index.pictures),
                shown(index.pictures[0].name),
            )
            return items, {uri}
        folder = Counter(dirname(there[0]) for there in found if there).most_common(1)
        for number, there in enumerate(found):
            item = self._item(uri, index, number, there, folder[0][0] if folder else dirname(uri), taken)
            items += [item] if item else []
        return items, {uri}

    def _item(
        self, uri: str, index: CocoIndex, number: int, there: list[str], folder: str, taken: dict[str, str]
    ) -> WorkItem | None:
        assert isinstance(self.config, CocoSettings)
        picture = index.pictures[number]
        own = slice(int(index.starts[number]), int(index.starts[number + 1]))
        problem = f"{uri}: {picture.problem}" if picture.problem else ""
        # Named after its picture even where that is missing, so that it is the same item once it is there.
        last = basename(picture.name.replace("\\", "/"))
        where = there[0] if there else join(folder, escaped(last))
        if not there:
            problem = f"{uri} lists this picture ({shown(picture.name)}), but it is missing"
            where = f"{where}#{escaped(str(picture.id))}"  # the name alone may be that of a picture in another folder
        elif len(there) > 1:
            problem = f"{uri} lists {shown(picture.name)}, and several pictures may be meant: {shortly(there)}"
            where = f"{where}#{escaped(str(picture.id))}"
        elif where in taken:
            problem = f"{uri} lists this picture twice; its annotations are those of one or the other"
            where = f"{where}#{escaped(str(picture.id))}"
        if there:
            taken.update(dict.fromkeys(there, uri))
        if not problem and own.start == own.stop and not self.config.empty:
            return None
        details = {
            "json": uri,
            "id": picture.id,
            "size": [picture.height, picture.width],
            "license": picture.license,
            "checksum": int(index.checksums[own].sum()),
            "annotations": [
                value
                for row in zip(*(each[own].tolist() for each in (index.offsets, index.lengths, index.numbers)))
                for value in row
            ],
        }
        if problem:
            details = {"problem": problem}
        return file_item(self.name, where, where, last.rsplit(".", 1)[0], details)

    def _tell(self, uri: str, index: CocoIndex, found: Sequence[list[str]]) -> None:
        if index.with_videos:
            log.warning(
                "%s: lists videos; their frames are read as single pictures, without tracks. --source mot reads "
                "sequences with identities, laid out like MOTChallenge",
                redact(uri),
            )
        if index.strays:
            log.warning("%s: %d annotations are of pictures that it does not list", redact(uri), index.strays)
        missing = sum(not there for there in found)
        if missing and missing < len(found):
            log.warning("%s: %d of its %d pictures are missing", redact(uri), missing, len(found))


def _root(uri: str) -> str:
    """The folder below which the pictures of a file most likely lie."""
    folder = dirname(uri)
    return dirname(folder) if basename(folder).lower().startswith("annotation") else folder


def _found(uri: str, index: CocoIndex, pictures: PictureNames) -> list[list[str]]:
    """The pictures that each of the file's may be."""
    last = Counter(basename(picture.name.replace("\\", "/")).lower() for picture in index.pictures)
    found = []
    by_last = 0
    for picture in index.pictures:
        there = pictures.find(picture.name, uri)
        if not there and last[basename(picture.name.replace("\\", "/")).lower()] == 1:
            there = pictures.find(picture.name, uri, alone=True)
            by_last += bool(there)
        found.append(there)
    if by_last:
        log.warning(
            "%s: %d pictures were found by the last part of their names: they lie in other folders than it says",
            redact(uri),
            by_last,
        )
    return found


def _check_double(uri: str, count: int, other: str) -> None:
    """Two files about the same pictures: one is left out if it says less, else somebody has to choose.

    Raises:
        InputError: it cannot be told which one is meant.
    """
    if basename(other).lower().startswith("instances") and not basename(uri).lower().startswith("instances"):
        log.warning("%s: left out, since %s is about the same pictures", redact(uri), redact(other))
        return
    raise InputError(
        f"{redact(uri)}: {count} of its pictures are those of {redact(other)}, too, and it cannot be told which "
        "annotations are meant: give one of the two files and the folder of the pictures, as --input each"
    )


def _check_classes(classes: frozenset[str], indexes: dict[str, CocoIndex]) -> None:
    """Hold the wanted classes against the categories of the files.

    Raises:
        InputError: a class that no file has; says the nearest.
    """
    readable = [index for index in indexes.values() if not index.problem and not index.boxless]
    known = sorted({name for index in readable for name in index.categories})
    for name in sorted(classes):
        if readable and name not in known:
            raise InputError(
                f"source_settings.classes: no category is called {name!r}; "
                f"{nearest(name, known) or 'there are ' + shortly(known, 10)}"
            )
    for uri, index in indexes.items():
        if classes and index in readable and not index.chosen:
            log.warning("%s: has none of the classes %s", redact(uri), ", ".join(sorted(classes)))
