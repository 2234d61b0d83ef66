"""Listing folders of this machine: links are followed, loops end, and nothing is left out in silence."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from trackmill.pipeline.storage.limits import MAX_LISTED_FILES, MAX_LISTING_DEPTH, ListingTooLarge
from trackmill.schemas.errors import StorageError

MOST_LINKS = 8
"""Links to folders on the way to a file. Folders that link to each other have a path for each order of them: the time
for all would grow without bounds, and nobody means them."""


def walk(folder: str, links: list[str] | None = None) -> Iterator[tuple[str, int]]:
    """Path and length in bytes of every file below a folder, in no order; hidden names (`.x`) are left out.

    Links to files and to folders are followed, since caches, annexes and shared folders consist of them; a folder that
    contains itself is entered once. A link to nothing is listed with length 0: whoever reads it says that it is gone.

    Args:
        folder: where to begin.
        links: takes the path of a link that was met, if there is any.

    Raises:
        StorageError: a folder cannot be listed, or more than `MOST_LINKS` links lead to it; names it. A short listing
            would pass for a whole one.
        ListingTooLarge: more folders lie in each other, or more files in all, than a listing may have.
    """
    for number, found in enumerate(_walk(folder, frozenset(), 0, links)):
        if number == MAX_LISTED_FILES:
            raise ListingTooLarge(f"{folder}: more than {MAX_LISTED_FILES:,} files; name fewer folders at once")
        yield found


def _walk(
    folder: str, above: frozenset[tuple[int, int]], num_links: int, links: list[str] | None
) -> Iterator[tuple[str, int]]:
    if len(above) >= MAX_LISTING_DEPTH:
        raise ListingTooLarge(f"{folder}: {MAX_LISTING_DEPTH} folders lie in each other; name the folder that you mean")
    try:
        place = os.stat(folder)
        if (place.st_dev, place.st_ino) in above:
            return
        here = above | {(place.st_dev, place.st_ino)}
        folders: list[tuple[str, int]] = []
        # Entry by entry: a folder may hold ten million.
        with os.scandir(folder) as scanned:
            yield from _files(scanned, folders, num_links, links)
        for path, deeper in folders:
            yield from _walk(path, here, deeper, links)
    except FileNotFoundError:
        return  # it was removed meanwhile
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"{error.filename or folder}: cannot be listed ({error.strerror or error}); mend that, or move it away: "
            "what is in it would be missing without a word"
        ) from error


def _files(
    scanned: Iterator[os.DirEntry[str]], folders: list[tuple[str, int]], num_links: int, links: list[str] | None
) -> Iterator[tuple[str, int]]:
    """The files of one folder; its folders, with the number of links that lead to each, go into `folders`."""
    for entry in scanned:
        if entry.name.startswith("."):
            continue
        status = _status(entry)
        if status is None:
            continue
        is_link = entry.is_symlink()
        if is_link and links is not None and not links:
            links.append(entry.path)
        if stat.S_ISDIR(status.st_mode):
            deeper = num_links + is_link
            if deeper > MOST_LINKS:
                raise StorageError(
                    f"{entry.path}: {deeper} links to folders lie one in the other; name the folders that you mean"
                )
            folders.append((entry.path, deeper))
        elif stat.S_ISREG(status.st_mode):
            yield entry.path, status.st_size
        elif stat.S_ISLNK(status.st_mode):
            yield entry.path, 0


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Of what a link leads to; of the link itself where that is nothing; None for what was removed meanwhile."""
    try:
        return entry.stat()
    except FileNotFoundError:
        return entry.stat(follow_symlinks=False) if entry.is_symlink() else None
    except OSError:
        if not entry.is_symlink():
            raise
        return entry.stat(follow_symlinks=False)  # links that lead to each other
