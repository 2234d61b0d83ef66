"""What every reader of frames offers, and what reading may cost.

A frame that cannot be read never stops the rest from being tracked, but is never passed over in silence: what happened
is collected in `FrameReader.problems`, and the frames after it keep their numbers. A picture file is skipped by itself,
an unreadable frame of a video together with those that refer to it.

Frames are decoded in a child process, within limits, while those before are tracked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from pydantic import Field

from trackmill.pipeline.isolation.limits import Limits
from trackmill.pipeline.isolation.remote_object import Calls, LocalObject, RemoteObject
from trackmill.pipeline.storage.urls import basename
from trackmill.pipeline.tracking.decoding import FrameDecoder
from trackmill.schemas.config import Settings
from trackmill.schemas.errors import InputError
from trackmill.schemas.tracking import SourceFrame

DEFAULT_FPS = 25.0
"""Where neither the video nor a `seqinfo.ini` has it; it decides only how fast the written video plays."""


class ReadLimits(Settings):
    """What is refused before it is decoded, and what decoding may cost."""

    max_pixels: int = Field(100_000_000, gt=0, description="Of one frame; perhaps a decompression bomb.")
    max_item_bytes: int = Field(4 << 30, gt=0, description="Of one picture file.")
    isolate: bool = Field(
        True,
        description="Decode in a child process under the two limits below; false: in this one, for a debugger.",
    )
    item_memory_bytes: int = Field(
        2 << 30, ge=0, description="Most memory that decoding a picture or a video may take; 0: any."
    )
    item_timeout_s: float = Field(
        600.0, ge=0, description="Seconds that the next frames may take to be decoded; 0: any."
    )

    def decoder(self) -> Calls:
        """Who opens and decodes, a `FrameDecoder`."""
        args = (self.max_pixels, self.max_item_bytes)
        if not self.isolate:
            return LocalObject(FrameDecoder, args)
        return RemoteObject(FrameDecoder, args, Limits(self.item_memory_bytes, self.item_timeout_s, section="read"))


class FrameReader(ABC):
    """Frames of one sequence; iterate over it once.

    Args:
        name: of the sequence; output files are called by it.
        fps: frames per second.
        num_frames: how many are expected, for the progress line.
    """

    def __init__(self, name: str, fps: float, num_frames: int) -> None:
        self.name, self.fps, self.num_frames = name, fps, num_frames
        self.problems: list[str] = []
        """What could not be read so far."""
        self.file_names: dict[str, int] = {}
        """Number, less 1, of the frame in each picture file; empty for a video."""
        self.begin_s = 0.0
        """When the first frame is shown that is read."""

    @property
    def first_number(self) -> int:
        """Number of the first frame."""
        return 1

    @property
    def last_number(self) -> int:
        """Number of the last frame."""
        return self.num_frames

    @property
    def numbers(self) -> Sequence[int]:
        """Numbers of all frames, ascending; pictures may leave some out."""
        return range(self.first_number, self.last_number + 1)

    def number_at(self, time_s: float) -> int:
        """Number of the first frame that is shown at `time_s` or later; one more than the last where there is none.

        Raises:
            InputError: it cannot be told beforehand.
        """
        raise InputError(f"{self.name}: its frames are not known beforehand, so no part of it can be taken")

    def keep_numbers(self, first: int, last: int | None) -> None:
        """Read only the frames from number `first` to `last`; None: to the end.

        Raises:
            InputError: this cannot be done here.
        """
        raise InputError(f"{self.name}: its frames are not known beforehand, so no part of it can be taken")

    def frame(self, number: int) -> SourceFrame:
        """One frame by its number, whatever was read before; not while somebody iterates.

        Raises:
            InputError: this cannot be done here, or there is no frame of this number.
            BadItem: it cannot be decoded.
            OSError: storage failed.
        """
        raise InputError(f"{self.name}: its frames are not known beforehand, so none can be read by its number")

    def read_as(self, other: FrameReader) -> None:
        """Read the same frames as another reader of this very video, under the same numbers and the same name."""
        self.name, self.num_frames, self.begin_s = other.name, other.num_frames, other.begin_s

    @abstractmethod
    def __iter__(self) -> Iterator[SourceFrame]:
        """The frames in their order.

        Raises:
            OSError: storage failed.
        """

    def close(self) -> None:  # noqa: B027  only videos hold something open
        """Let go of the file."""


def name_of(url: str) -> str:
    """The name of a file without folder and ending, as a sequence of one file is called."""
    return basename(url).rpartition(".")[0] or basename(url)
