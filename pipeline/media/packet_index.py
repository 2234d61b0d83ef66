"""The frames of a video by the times of its packets, listed once without decoding.

Index 0 is what a player shows first. A frame whose data is lost or damaged keeps its index, and so do those behind it:
what is known of frame 100 elsewhere must not land on frame 99.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO

import av
from av.error import FFmpegError

from trackmill.pipeline.media import avi, flash_video, matroska, ogg
from trackmill.pipeline.media.containers import MOST_FPS, average_rate, declared_frames, frame_rate
from trackmill.pipeline.media.cut_short import is_cut_short
from trackmill.pipeline.media.errors import BadItem, too_many_frames
from trackmill.pipeline.media.limits import MAX_FRAMES
from trackmill.pipeline.media.lost_packets import damaged_packets, has_gap, lost_times, near_breaks
from trackmill.pipeline.media.packets import Packet, join_recordings, put_in_order
from trackmill.pipeline.media.transport_stream import Break, find_breaks

UNKNOWN_PLACE = 1 << 62
"""Of a packet that cannot be told from another one."""

_REORDERED = 4
"""Frames that may be decoded before one that is shown earlier, in files as encoders write them."""

_MOST_DAMAGE = 10_000
"""Places where a file is damaged; one with more is no video any more."""

_FIND_DAMAGE: dict[str, Callable[[IO[bytes], int], list[int]]] = {
    "matroska,webm": matroska.find_damage,
    "flv": flash_video.find_damage,
}

_FARTHEST_RATE = 0.1
"""A stated rate that is off by more than this share is not the rate at which frames come."""


@dataclass(frozen=True, slots=True)
class Keyframe:
    """A frame that decoding can begin at: its index, its place among the packets, and its times."""

    index: int
    place: int
    pts: int
    dts: int | None


@dataclass(slots=True)
class PacketIndex:
    """What `list_packets` finds.

    Args:
        num_frames: frames that have an index.
        missing: frames behind them that the file declares and does not hold.
        fps: the rate at which frames come; 0 where it is not known.
        times: (num_frames,) presentation times, ascending; None: there are none, and frames are counted as they come
            out of the decoder.
        places: place in the order of decoding, by presentation and decoding time.
        keyframes: those that a seek may look for, by index; none in joined recordings, whose times repeat.
        starts: indices that decoding can begin at, ascending; of joined recordings too.
        shifts: (place, shift): from that packet on, the shift is added to times, since recordings were joined.
        unreadable: indices of frames whose data, or that of frames that they refer to, is lost.
        untrusted: places of the packets that are not decoded because of that.
    """

    num_frames: int = 0
    missing: int = 0
    fps: float = 0.0
    times: list[int] | None = None
    places: dict[tuple[int | None, int | None], int] = field(default_factory=dict)
    keyframes: list[Keyframe] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    shifts: list[tuple[int, int]] = field(default_factory=list)
    unreadable: set[int] = field(default_factory=set)
    untrusted: set[int] = field(default_factory=set)

    def index_of(self, time: int) -> int | None:
        """Index of the frame that is shown at this time; None where there is none."""
        times = self.times or []
        row = bisect.bisect_left(times, time)
        return row if row < len(times) and times[row] == time else None

    def next_start(self, index: int) -> int | None:
        """The next frame that does not refer to one that cannot be decoded; None where there is none."""
        if index in self.unreadable:
            later: Iterable[int] = range(index + 1, self.num_frames)
        else:
            later = self.starts[bisect.bisect_right(self.starts, index) :]
        return next((each for each in later if each not in self.unreadable), None)

    def shift_at(self, place: int) -> int:
        """What is added to the times of a packet."""
        row = bisect.bisect_right(self.shifts, place, key=lambda each: each[0]) - 1
        return self.shifts[row][1] if row >= 0 else 0


def list_packets(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    handle: IO[bytes],
    name: str = "",
    max_frames: int = MAX_FRAMES,
) -> PacketIndex:
    """Read all packets of a video stream, decoding none; the container is at its end afterwards.

    Args:
        container, stream: see `trackmill.pipeline.media.containers.open_video`.
        handle: what they read from.
        name: URI, for the error.
        max_frames: most packets that are listed: each takes some 400 bytes of memory.

    Raises:
        FrameLimit: there are more than `max_frames`.
        BadItem: it is damaged in more places than anyone would read on behind.
    """
    found = PacketIndex()
    kind = container.format.name
    declared = declared_frames(container, stream, handle)
    packets = list(itertools.islice(_packets(container, stream), max_frames + 1))
    if len(packets) > max_frames:
        raise too_many_frames(name, len(packets), max_frames)
    num_counted = sum(packet.counted for packet in packets)
    if kind == "ogg" or (kind == "avi" and num_counted < declared):
        packets = _before_damage(packets, kind, handle)
        declared = max(declared, num_counted)
        num_counted = sum(packet.counted for packet in packets)
    unusable: set[int] = set()
    if kind in ("mpegts", "mpeg"):
        unusable = put_in_order(packets)
        found.shifts, cut_off = join_recordings(packets, stream)
        unusable |= cut_off
    found.fps = _rate(stream, kind, packets)
    # A transport stream has no header that says how long it was meant to be: what is told there is what it holds.
    duration_s = 0.0 if kind == "mpegts" else (container.duration or 0) / av.time_base
    if is_cut_short(handle, kind, duration_s):
        # In seconds; one frame is missing at least.
        declared = max(declared, num_counted + 1, round(duration_s * found.fps))
    found.missing = max(0, declared - num_counted)
    # AVI stores the order of decoding alone. Where FFmpeg does not work the times of B-frames out, packets that are
    # decoded one after the other seem to be shown so as well, and the frames that come out have other times. Then
    # frames are counted as they come out, as where there are no times at all.
    guessed = kind == "avi" and bool(stream.codec_context.has_b_frames)
    times = [packet.pts for packet in packets if packet.shown and packet.pts is not None]
    num_shown = sum(packet.shown for packet in packets)
    if (guessed and times == sorted(times)) or len(set(times)) != num_shown:
        # Where an end is missing, B-frames may be that belong before the last frames that are there.
        uncertain = min(num_shown, _REORDERED) if found.missing and stream.codec_context.has_b_frames else 0
        found.num_frames, found.missing = num_shown - uncertain, found.missing + uncertain
        return found
    breaks = _breaks(handle, kind, stream, times, name)
    if kind == "mpegts" and found.missing and packets:
        breaks.append(Break((packets[-1].position or 0) + 1, clean=False))  # the last one lacks its end
    _index(found, packets, unusable | damaged_packets(packets, breaks), breaks)
    return found


def _before_damage(packets: list[Packet], kind: str, handle: IO[bytes]) -> list[Packet]:
    """Of a container that leaves no way to number frames behind damage: those before it, all if there is none."""
    if kind == "ogg":
        damage = ogg.first_damage(handle)
    else:
        positions = [packet.position - avi.CHUNK_HEAD for packet in packets if packet.position]
        damage = avi.first_damage(handle, min(positions)) if positions else None
    if damage is None:
        return packets
    return [packet for packet in packets if packet.position is not None and packet.position < damage]


def _breaks(handle: IO[bytes], kind: str, stream: av.VideoStream, times: Sequence[int], name: str) -> list[Break]:
    """Where a container shows that packets are missing; all but transport streams only where the times leave a gap."""
    if kind == "mpegts":
        return find_breaks(handle, stream.id)
    find = _FIND_DAMAGE.get(kind)
    if find is None or not has_gap(times):
        return []
    positions = find(handle, _MOST_DAMAGE + 1)
    if len(positions) > _MOST_DAMAGE:
        raise BadItem(f"{name}: is damaged in more than {_MOST_DAMAGE} places")
    return [Break(position, clean=False) for position in positions]


def _packets(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[Packet]:
    kind = container.format.name
    # VP8 has packets that only prepare others; a bit says whether its picture is shown.
    some_prepare_others = stream.codec_context.name in ("vp8", "libvpx")
    try:
        for place, packet in enumerate(container.demux(stream)):
            if packet.size == 0 and packet.pts is None and packet.dts is None:
                continue  # PyAV's own mark of the end
            # Where packets are lost in a transport stream is found out by `find_breaks`; what follows can be used.
            if packet.is_corrupt and kind != "mpegts":
                return
            prepares = some_prepare_others and packet.size > 0 and not memoryview(packet)[0] & 0x10
            visible = not packet.is_discard
            shown = visible and packet.size > 0 and not prepares
            # Pictures of a GIF or APNG are drawn over those before; FFmpeg calls all of them keyframes.
            is_key = packet.is_keyframe and (place == 0 or kind not in ("gif", "apng"))
            yield Packet(place, packet.pts, packet.dts, packet.pos, is_key, shown, counted=visible)
    except MemoryError:
        raise
    except FFmpegError:
        pass  # what can still be read counts; a frame beyond it says that the video ends early


def _rate(stream: av.VideoStream, kind: str, packets: Sequence[Packet]) -> float:
    """Frames per second: as stated where that can be true, else as measured."""
    stated = frame_rate(stream)
    measured = average_rate([packet.pts for packet in packets if packet.shown and packet.pts is not None], stream)
    if not measured:
        return stated
    if not stated or stated > MOST_FPS:
        return measured
    # The rate of an MP4 is an average already; others state the shortest distance, or what a camera was set to.
    far = "mp4" not in kind and abs(stated - measured) > _FARTHEST_RATE * measured
    return measured if far else stated


def _index(found: PacketIndex, packets: Sequence[Packet], damaged: set[int], breaks: Sequence[Break]) -> None:
    first = next((i for i, packet in enumerate(packets) if packet.is_key), len(packets))
    # What comes before the first keyframe, in the file or on the screen, refers to frames that were cut off.
    packets = packets[first:]
    shown = [packet for packet in packets if packet.shown and packet.pts >= packets[0].pts]  # type: ignore[operator]
    shown.sort(key=lambda packet: packet.pts or 0)
    found.untrusted = damaged
    lost = lost_times(shown, near_breaks(damaged, breaks), found.fps) if damaged or breaks else []
    lost = lost or []
    found.missing = max(0, found.missing - len(lost))
    if found.missing:
        shown, at_end = _with_known_places(shown, packets, found.fps)
        found.missing = max(1, found.missing - len(at_end))
        lost += at_end
    found.times = sorted([packet.pts for packet in shown if packet.pts is not None] + lost)
    found.num_frames = len(found.times)
    hurt = [*lost, *(packet.pts for packet in shown if packet.place in damaged)]
    found.unreadable = {row for pts in hurt if pts is not None and (row := found.index_of(pts)) is not None}
    for packet in packets:
        # Where an edit list shows a part twice, two packets may bear the same times: no seek may begin at either.
        times_of = (packet.pts, packet.dts)
        found.places[times_of] = UNKNOWN_PLACE if times_of in found.places else packet.place
        if not (packet.is_key and packet.shown) or packet.pts is None:
            continue
        row = found.index_of(packet.pts)
        if row is not None:
            found.keyframes.append(Keyframe(row, packet.place, packet.pts, packet.dts))
    found.keyframes.sort(key=lambda keyframe: keyframe.index)
    found.starts = [keyframe.index for keyframe in found.keyframes]
    if found.shifts:
        found.keyframes = []


def _with_known_places(shown: list[Packet], packets: Sequence[Packet], fps: float) -> tuple[list[Packet], list[int]]:
    """Of a file that was cut short: the frames whose places are known, and the times of those missing between them.

    Frames that come later in the file are decoded later than all that is there, but some may be shown before the last.
    """
    last = packets[-1].dts if packets else None
    if last is None:
        return shown, []
    lost = lost_times(shown, lambda before, after: (after.pts or 0) > last, fps)
    if lost is None:
        return [packet for packet in shown if (packet.pts or 0) <= last], []
    return shown, lost
