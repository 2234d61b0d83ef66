"""A picture whose objects stand in a file about many pictures: decoded, and its annotations scaled with it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Iterable, Set

from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.media.fetching import fetch_bytes
from trackmill.pipeline.media.pictures import decode_picture
from trackmill.pipeline.media.scaling import annotations_of_frame
from trackmill.pipeline.sources.base import Claim, ReadSettings
from trackmill.pipeline.sources.picture_names import PictureNames
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.urls import dirname
from trackmill.schemas.errors import InputError
from trackmill.schemas.media import Annotations, Frame, Media

log = logging.getLogger("trackmill")


def annotated_picture(
    uri: str, annotate: Callable[[int, int], Annotations], settings: ReadSettings, *, amodal: bool, license: str
) -> Media:
    """Decode a picture.

    Args:
        uri: of the picture.
        annotate: its objects, in pixels of the original, given its height and width.
        settings: how to read.
        amodal, license: see `trackmill.schemas.media.Media`.

    Raises:
        BadItem: (or a subclass) the picture is broken, or `annotate` says that its annotations are.
        OSError: it could not be fetched.
    """
    data = fetch_bytes(uri, max_bytes=settings.max_item_bytes)
    picture = decode_picture(data, uri, max_pixels=settings.max_pixels, longest_side=settings.longest_side)
    size = picture.height, picture.width
    annotations = annotations_of_frame(annotate(*size), size, picture.image, amodal=amodal)
    return Media(
        kind="image",
        frames=[Frame(image=picture.image, encoded=picture.encoded, annotations=annotations)],
        original_height=picture.height,
        original_width=picture.width,
        sha256=hashlib.sha256(data).hexdigest(),
        num_bytes=len(data),
        annotated=True,
        amodal=amodal,
        license=license,
        conversions=picture.conversions,
    )


def raise_planned_problem(source_id: str, problem: str) -> None:
    """Raise `BadItem` for an item that the plan already knew to be no good."""
    if problem:
        raise BadItem(f"{source_id}: {problem}")


def leave_out_others(
    claim: Claim, pictures: PictureNames, taken: Set[str], annotations: Iterable[str], broken: Iterable[str] = ()
) -> None:
    """Keep pictures that lie among annotated ones, but are not annotated, from being mined as pictures of their own.

    Args:
        claim: what is claimed so far; the others are added to what is used.
        pictures: of the listing.
        taken: annotated pictures.
        annotations: the files that were read, for the warning.
        broken: folders below which annotations may be of any picture, because they cannot be read.
    """
    others = [uri for uri in pictures.among({dirname(uri) for uri in taken}, broken) if uri not in taken]
    if others:
        log.warning(
            "%d pictures, such as %s, lie among annotated ones and are left out: nothing that can be read is said of "
            "them in %s; --source images takes them",
            len(others),
            redact(others[0]),
            shortly([redact(each) for each in annotations]),
        )
        claim.used.update(others)


def begun_without_annotations(planned: Set[str], uris: Collection[str], source: str, *, explicit: bool) -> set[str]:
    """Pictures that the data set already holds without annotations: they stay so, and it is said.

    Raises:
        InputError: there are some, and `--source` asks for their annotations (`explicit`).
    """
    begun = {uri for uri in uris if uri in planned}
    if begun and explicit:
        raise InputError(
            f"{redact(min(begun))}: this output was begun with its pictures without annotations; mine them with "
            "annotations into another --output"
        )
    if begun:
        log.info(
            "%d pictures stay without annotations, as this output was begun; --source %s mines them with annotations "
            "into another --output",
            len(begun),
            source,
        )
    return begun


def shortly(names: Collection[str], most: int = 3) -> str:
    """Some names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
