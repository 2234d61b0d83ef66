"""Source `mot`: sequences laid out like MOTChallenge (MOT15/16/17/20, DanceTrack, SportsMOT).

A sequence is a folder with `img1/NNNNNN.jpg` (or png), perhaps `gt/gt.txt`, perhaps `seqinfo.ini`. The files decide
what its frames are: `seqLength` often promises more than a copy holds. Frames are numbered by their place in the
folder, from 0; rows of `gt.txt` belong to the number in the file's name, or to its place where only that can be meant
(`trackmill.pipeline.formats.frame_numbers`).

Boxes that leave the picture are cut at its border, or kept with `read.amodal`.

MOT17 has each sequence three times, for the detections of three detectors (`MOT17-02-DPM`, `-FRCNN`, `-SDP`), with the
same pictures and the same ground truth. All that are given are read, with a warning: a pattern such as
`--input "MOT17/train/*-FRCNN/**"` names one of each.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence, Set
from typing import Any

import orjson

from trackmill.pipeline.formats.frame_numbers import FramesDoNotFit, row_shift
from trackmill.pipeline.formats.seqinfo import DEFAULT_FPS, parse_seqinfo
from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.sources.apart import pair_apart
from trackmill.pipeline.sources.base import Claim, ReadSettings, Source
from trackmill.pipeline.sources.clips import clip_item, cut_clips, num_kept, stride_for
from trackmill.pipeline.sources.frame_files import FrameFile, read_frame_files
from trackmill.pipeline.sources.mot_rows import GroundTruth, read_ground_truth
from trackmill.pipeline.sources.probing import probe_files
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.list_files import FileInfo
from trackmill.pipeline.storage.urls import basename, dirname, join
from trackmill.schemas.media import Annotations, Media, WorkItem

log = logging.getLogger("trackmill")

_FRAME = re.compile(r"^(?P<sequence>.+)/(?P<folder>[^/]+)/(?P<name>(?P<number>\d+)\.(?i:jpg|jpeg|png))$")
_TRUTH = "/gt/gt.txt"
_COPY = re.compile(r"^(?P<video>.*/MOT17-\d+)-(?:DPM|FRCNN|SDP)$")
_MAX_SEQINFO_BYTES = 64 * 1024


class Mot(Source):
    """Clips with boxes and identities: every frame of a labelled sequence, about `label_fps` of any other."""

    name = "mot"
    version = 1
    annotated = True
    looked_for = "folders with img1/NNNNNN.jpg"
    needs = r"(?i)/img1/|/seqinfo[.]ini$"

    def __init__(self, settings: ReadSettings) -> None:
        super().__init__(settings)
        self._ground_truth: tuple[str, GroundTruth] = ("", {})

    def claim(self, files: Sequence[FileInfo]) -> Claim:
        """Sequences whose frames are listed, with the small `seqinfo.ini` read for frame rate and folder."""
        listed = {file.uri for file in files}
        sequences: dict[str, dict[str, dict[int, str]]] = {}
        for uri in sorted(listed):
            if match := _FRAME.match(uri):
                folders = sequences.setdefault(match["sequence"], {})
                folders.setdefault(match["folder"], {})[int(match["number"])] = match["name"]
        _warn_of_copies(sequences)
        claim = Claim()
        apart = _truths_apart(listed, sequences)
        begun: list[tuple[str, str, dict[int, str], dict[str, Any]]] = []
        for sequence, folders in sequences.items():
            seqinfo = join(sequence, "seqinfo.ini")
            image_folder, fps, problem = _seqinfo(seqinfo) if seqinfo in listed else ("img1", DEFAULT_FPS, "")
            folder = _image_folder(sequence, image_folder, folders)
            if folder is None:
                continue
            frames = folders[folder]
            truth = apart.get(sequence, join(sequence, "gt", "gt.txt"))
            claim.used.update(join(sequence, folder, name) for name in frames.values())
            claim.used.update({seqinfo, truth, join(sequence, "det", "det.txt")} & listed)
            common: dict[str, Any] = {
                "fps": fps,
                "frames": len(frames),
                "gt": truth if truth in listed else None,
                "problem": problem,
            }
            begun.append((sequence, folder, frames, common))
        odd = [common["gt"] for _, _, frames, common in begun if common["gt"] and min(frames) != 1]
        # Somebody's text, which is parsed where nothing else can be hurt.
        read = probe_files(odd, _frames_with_rows, "ground truths", lambda reason: None) if odd else []
        rows = dict(zip(odd, read, strict=True))
        for sequence, folder, frames, common in begun:
            numbers = sorted(frames)
            if (found := rows.get(common["gt"])) is not None:
                common |= self._numbering(sequence, common["gt"], numbers, found)
            claim.items += self._items(sequence, folder, [frames[number] for number in numbers], common)
        return claim

    def read(self, item: WorkItem) -> Media:
        """Decode a clip and its boxes."""
        details = orjson.loads(item.details)
        if details["problem"]:
            raise BadItem(f"{item.source_id}: {details['problem']}")
        files = []
        for position, name in enumerate(details["names"]):
            uri = join(item.uri, name)
            gone = f"{uri}: the frame was there when the work was planned, and is missing now"
            files.append(FrameFile(uri, item.first_frame + position * item.stride, gone))
        return read_frame_files(
            files,
            lambda file, height, width: self._annotations(
                details["gt"], _number(file.uri) + details.get("shift", 0), height, width
            ),
            fps=details["fps"],
            num_source_frames=details["frames"],
            annotated=details["gt"] is not None,
            license=self.settings.license or "unknown",
            where=item.source_id,
            settings=self.settings,
            amodal=self.settings.amodal and details["gt"] is not None,
        )

    def _items(self, sequence: str, folder: str, names: list[str], common: dict[str, Any]) -> list[WorkItem]:
        # Every frame of these data sets is labelled: that is their label rate.
        stride = 1 if common["gt"] else stride_for(common["fps"], self.settings.label_fps)
        kept = names[::stride]
        assert len(kept) == num_kept(len(names), stride)
        items = []
        for clip in cut_clips(len(kept), self.settings.frames_per_clip):
            details = {**common, "names": kept[clip.start : clip.start + clip.length]}
            items.append(clip_item(self.name, join(sequence, folder), basename(sequence), clip, stride, details))
        return items

    def _numbering(self, sequence: str, truth: str, numbers: list[int], rows: list[int]) -> dict[str, Any]:
        """What is added to the numbers of pictures that do not begin at 1, or why that cannot be said."""
        try:
            shift = row_shift(numbers, rows)
        except FramesDoNotFit as error:
            return {"problem": f"{truth}: {error}"}
        if not shift:
            return {}
        log.warning(
            "%s: pictures are numbered from %d, rows from 1: the first picture gets the rows of frame 1, and so on",
            redact(sequence),
            numbers[0],
        )
        return {"shift": shift}

    def _annotations(self, truth: str | None, number: int, height: int, width: int) -> Annotations | None:
        if truth is None:
            return None
        if self._ground_truth[0] != truth:
            self._ground_truth = (truth, read_ground_truth(truth))
        rows = self._ground_truth[1].get(number)
        if rows is None:
            return Annotations()
        if self.settings.amodal:
            return rows.amodal(height, width, f"{truth}: frame {number}")
        return rows.clipped(height, width)


def _frames_with_rows(truth: str) -> list[int] | None:
    """Numbers of the frames in a `gt.txt`; None where it is no good, which reading an item explains."""
    try:
        return list(read_ground_truth(truth))
    except BadItem:
        return None


def _warn_of_copies(sequences: Iterable[str]) -> None:
    """Say that sequences of MOT17 with the detections of several detectors are the same pictures."""
    copies: dict[str, list[str]] = defaultdict(list)
    for sequence in sequences:
        if match := _COPY.match(sequence):
            copies[match["video"]].append(sequence)
    several = [sorted(names) for _, names in sorted(copies.items()) if len(names) > 1]
    if several:
        first = several[0]
        log.warning(
            "%s: the same pictures and ground truth under %d names, one for each detector (%d such videos); all are "
            'mined: --input "%s/*-%s/**" names one of each',
            ", ".join([redact(first[0]), *map(basename, first[1:])]),
            len(first),
            len(several),
            redact(dirname(first[0])),
            first[-2 if len(first) > 2 else 0].rpartition("-")[2],
        )


def _image_folder(sequence: str, stated: str, folders: Collection[str]) -> str | None:
    """The folder that `seqinfo.ini` names, or else `img1`, which it was copied with; None where there is neither."""
    if stated in folders:
        return stated
    found = next((name for name in folders if name.lower() == stated.lower()), "img1" if "img1" in folders else None)
    if found is not None:
        log.warning(
            "%s/seqinfo.ini: there are no pictures in %s/, those in %s/ are read", redact(sequence), stated, found
        )
    return found


def _truths_apart(listed: Set[str], sequences: Iterable[str]) -> dict[str, str]:
    """Ground truth of sequences that lies in another folder, as `annotations/SEQUENCE/gt/gt.txt` beside `images/`."""
    truths = {uri.removesuffix(_TRUTH): uri for uri in listed if uri.endswith(_TRUTH)}
    bare = {sequence: sequence for sequence in sequences if sequence not in truths}
    paired = pair_apart(bare, truths.keys() - set(sequences))
    return {sequence: truths[folder] for folder, sequence in paired.items()}


def _number(uri: str) -> int:
    return int(basename(uri).split(".")[0])


def _seqinfo(uri: str) -> tuple[str, float, str]:
    """Image folder, frame rate and, where the file is no good, what is wrong with it."""
    try:
        folder, fps = parse_seqinfo(read_bytes(uri, max_bytes=_MAX_SEQINFO_BYTES).decode("utf-8-sig"))
    except (ValueError, OSError) as error:
        text = " ".join(str(error).split())
        return "img1", DEFAULT_FPS, f"{dirname(uri)}/seqinfo.ini cannot be used: {text}"
    return folder, fps, ""
