"""Which items are one and the same, however their paths are spelt: through a link, on another mount, by another scheme.

An item is called by the path that it was first planned under, for ever. When an input brings it again, by another
spelling, it is recognised and not mined twice. Three things tell:

- the file: a link and what it leads to, or two mounts of one folder;
- the spelling: `s3a://` and `s3://` are one store, and a signature is another each day;
- the place below the input's root, where the bytes agree as well: a copy, or a mount that is gone by now.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from trackmill.pipeline.console.words import counted
from trackmill.pipeline.mining.changes import clip_name, video_of
from trackmill.pipeline.mining.places import Contents, Places, root_of_input
from trackmill.pipeline.mining.plan import Plan
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.names import escaped, existing_path
from trackmill.pipeline.storage.urls import is_local, one_scheme
from trackmill.schemas.media import WorkItem

log = logging.getLogger("trackmill")

_CLIP = re.compile(r"#c[0-9]{3,}$")
_LENGTHS = ("frames", "exact")
"""Details of a clip that change with the length of its video."""

_SIGNED_QUERY = re.compile(r"(?<=[^/?#])\?(?:[^#]*&)?[^#=&]*(?i:signature|sig)=[^#]*")


@dataclass(slots=True)
class Recognised:
    """A listing's items after `recognise`.

    Args:
        items: each once. One that is planned already has the planned `source_id` and `key`, and lies where it was found
            now.
        elsewhere: those of them that are planned at another place, by the planned `source_id`.
    """

    items: list[WorkItem] = field(default_factory=list)
    elsewhere: dict[str, WorkItem] = field(default_factory=dict)


def recognise(
    items: Sequence[WorkItem],
    plan: Plan | None,
    roots: Sequence[str],
    planned_roots: Sequence[str],
    sizes: Mapping[str, int],
    contents: Contents,
) -> Recognised:
    """Tell which items of a listing are planned already, or are listed twice.

    Args:
        items: of the listing.
        plan: what is planned.
        roots: the inputs that the listing was made from; files, folders or globs.
        planned_roots: likewise of the plan.
        sizes: bytes of each listed file.
        contents: of an item, listed or planned.
    """
    known = plan.source_ids() if plan else set()
    done = Recognised(items=[item for item in items if item.source_id in known])
    new = [item for item in items if item.source_id not in known]
    if not new:
        return done
    planned = plan.items(0, plan.num_items) if plan else []
    found = _Found(done, {item.source_id for item in planned})
    new = found.settle_videos(new, planned)
    new = found.settle(new, planned, _by_file)
    new = found.settle(new, planned, _by_spelling)
    files = {*sizes, *(item.uri for item in items), *(item.uri for item in planned)}
    ordered = list(dict.fromkeys(root_of_input(url, files) for url in [*planned_roots, *roots]))
    if len(ordered) == 1:
        done.items += new
        found.tell()
        return done
    tell_by_place = Places(ordered, sizes, contents)
    first_root = {root: place for place, root in enumerate(ordered)}
    earlier = list(planned)
    for root in sorted({tell_by_place.root(item.uri) for item in new}, key=lambda root: first_root.get(root, -1)):
        here = [item for item in new if tell_by_place.root(item.uri) == root]
        earlier += found.settle(here, earlier, tell_by_place)
    done.items += earlier[len(planned) :]
    found.tell()
    return done


class _Found:
    """Collects what is recognised."""

    def __init__(self, done: Recognised, planned: set[str]) -> None:
        self._done = done
        self._planned = planned
        self._twice: list[tuple[WorkItem, WorkItem]] = []

    def settle(
        self,
        new: Sequence[WorkItem],
        earlier: Sequence[WorkItem],
        tell: Callable[[Sequence[WorkItem], Sequence[WorkItem]], dict[str, WorkItem]],
    ) -> list[WorkItem]:
        """What is left of `new` when all that `tell` recognises, by its `source_id`, is taken out."""
        same = tell(new, earlier)
        left = []
        for item in new:
            twin = same.get(item.source_id)
            if twin is None:
                left.append(item)
                continue
            self._twice.append((item, twin))
            if twin.source_id in self._planned and twin.source_id not in self._done.elsewhere:
                renamed = dataclasses.replace(item, source_id=twin.source_id, key=twin.key)
                self._done.elsewhere[twin.source_id] = renamed
                self._done.items.append(renamed)
        return left

    def settle_videos(self, new: Sequence[WorkItem], planned: Sequence[WorkItem]) -> list[WorkItem]:
        """What is left of `new` without the clips of videos that are planned under another path of the same files.

        A video that grew is cut otherwise, so that its clips are told by the video and not one by one; those that are
        not planned yet get the planned video's name, too.
        """
        real = _RealPaths()
        videos = {name: clip for clip in planned if (name := real.video(clip)) is not None}
        listed = {item.source_id for item in [*self._done.items, *new]}
        left = []
        for item in new:
            clip = videos.get(name) if videos and (name := real.video(item)) is not None else None
            if clip is None or video_of(clip.source_id) == video_of(item.source_id):
                left.append(item)
                continue
            source_id, key = clip_name(clip, int(item.source_id.rpartition("#c")[2]))
            self._twice.append((item, clip))
            if source_id in listed:
                continue  # the video is listed under the planned path, too, or under two other ones
            listed.add(source_id)
            renamed = dataclasses.replace(item, source_id=source_id, key=key)
            if source_id in self._planned:
                self._done.elsewhere[source_id] = renamed
            self._done.items.append(renamed)
        return left

    def tell(self) -> None:
        """Say what was recognised."""
        groups: dict[tuple[str, str], list[tuple[WorkItem, WorkItem]]] = defaultdict(list)
        for item, twin in self._twice:
            groups[_where_they_part(item.uri, twin.uri)].append((item, twin))
        for (here, there), pairs in sorted(groups.items())[:10]:
            log.warning(
                "%s and %s hold the same: %s mined once, under the second name, such as %s",
                redact(here),
                redact(there),
                counted(len(pairs), "item is", "items are"),
                redact(pairs[0][1].source_id),
            )
        if len(groups) > 10:
            log.warning("... and %s of folders", counted(len(groups) - 10, "more pair"))


def _where_they_part(first: str, second: str) -> tuple[str, str]:
    """Two paths without the end that they share."""
    a, b = first.split("/"), second.split("/")
    while len(a) > 1 and len(b) > 1 and a[-1] == b[-1]:
        a.pop()
        b.pop()
    return "/".join(a), "/".join(b)


def _by_file(new: Sequence[WorkItem], earlier: Sequence[WorkItem]) -> dict[str, WorkItem]:
    """Items of which all files are the same when links are followed; the one without a link counts as the first."""
    real = _RealPaths()
    first: dict[tuple[str, str], WorkItem] = {}
    for item in earlier:
        if (name := real.of(item)) is not None:
            first.setdefault((item.source, name), item)
    linked, same = [], {}
    for item in new:
        name = real.of(item)
        if name == item.source_id and (item.source, name) not in first:
            first[item.source, name] = item
        elif name is not None:
            linked.append((name, item))
    for name, item in linked:
        twin = first.setdefault((item.source, name), item)
        if twin is not item and real.details(item) == real.details(twin):
            same[item.source_id] = twin
    return same


def _by_spelling(new: Sequence[WorkItem], earlier: Sequence[WorkItem]) -> dict[str, WorkItem]:
    """Items whose URLs differ in the name of the scheme, or in a signature that is another each time."""
    first: dict[tuple[str, str], WorkItem] = {}
    for item in earlier:
        if not is_local(item.uri):
            first.setdefault(_spelt(item), item)
    elsewhere = [item for item in new if not is_local(item.uri)]
    return {item.source_id: twin for item in elsewhere if (twin := first.setdefault(_spelt(item), item)) is not item}


def _spelt(item: WorkItem) -> tuple[str, str]:
    return item.source, one_scheme(_SIGNED_QUERY.sub("", item.source_id))


class _RealPaths:
    """Paths of this machine with all links followed; each folder is looked at once."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def of(self, item: WorkItem) -> str | None:
        """An item's `source_id` with the real path in it; None where it is not on this machine or has no path in it."""
        if not is_local(item.uri) or not item.source_id.startswith(item.uri):
            return None
        return self._path(item.uri) + item.source_id[len(item.uri) :]

    def details(self, item: WorkItem) -> Any:
        """What its source needs to know, with the real paths in it."""
        return self._in(orjson.loads(item.details))

    def video(self, item: WorkItem) -> tuple[str, str, str] | None:
        """What a clip is cut from, and what is the same of all its clips however long it is; None of other items."""
        name = self.of(item) if _CLIP.search(item.source_id) else None
        if name is None:
            return None
        each = {key: value for key, value in self.details(item).items() if key not in _LENGTHS}
        same = {key: value for key, value in each.items() if not isinstance(value, list)}
        return item.source, video_of(name), orjson.dumps(same, option=orjson.OPT_SORT_KEYS).decode()

    def _in(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._in(each) for name, each in value.items()}
        if isinstance(value, list):
            return [self._in(each) for each in value]
        return self._path(value) if isinstance(value, str) and value.startswith("/") else value

    def _path(self, path: str) -> str:
        path = existing_path(path)
        folder, _, name = path.rpartition("/")
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder or "/")
        joined = os.path.join(self._folders[folder], name)
        # Plans of older versions have unprintable names without escapes.
        return escaped(os.path.realpath(joined) if os.path.islink(joined) else joined)
