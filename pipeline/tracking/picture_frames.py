"""The frames that a folder of pictures holds, numbered as the rows of MOTChallenge files number them."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence

from trackmill.pipeline.formats.frame_numbers import FramesDoNotFit, row_shift
from trackmill.pipeline.isolation.limits import LimitReached
from trackmill.pipeline.isolation.remote_object import Calls
from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.urls import join
from trackmill.pipeline.tracking.frame_reader import FrameReader
from trackmill.schemas.errors import InputError
from trackmill.schemas.tracking import SourceFrame

log = logging.getLogger("trackmill")


class PictureFrames(FrameReader):
    """Picture files in the order of their numbers; sizes may differ from one to the next.

    Args:
        folder: URL of the folder.
        files: names in it, and the number of each frame.
        name, fps: see `FrameReader`.
        decoder: see `ReadLimits.decoder`; closed with this reader.
    """

    def __init__(self, folder: str, files: list[tuple[str, int]], name: str, fps: float, decoder: Calls) -> None:
        super().__init__(name, fps, len(files))
        self._folder, self._decoder = folder, decoder
        self._skipped = 0
        self._number(files)

    def _number(self, files: list[tuple[str, int]]) -> None:
        self._files = files
        self.file_names = {file: number - 1 for file, number in files}

    def shift_to(self, rows: Iterable[int], where: str) -> int:
        """What is added to the number of a frame to get that of its rows in a MOTChallenge file, see `row_shift`.

        Args:
            rows: frame numbers of the file.
            where: the file, for messages.

        Raises:
            InputError: neither the numbers nor the places of the pictures fit; says what to do.
        """
        try:
            return row_shift(self.numbers, rows)
        except FramesDoNotFit as error:
            raise InputError(f"{where}: {error}") from None

    def fit_rows(self, rows: Iterable[int], where: str) -> None:
        """Number the frames as the rows of a MOTChallenge file do, where the pictures are not numbered from 1.

        Arguments and errors as in `shift_to`.
        """
        shift = self.shift_to(rows, where)
        if shift:
            first = self._files[0][0]
            log.warning("%s: the pictures begin with %s: it is frame 1, the next one 2, and so on", where, first)
            self._number([(name, number + shift) for name, number in self._files])

    @property
    def first_number(self) -> int:
        """See `FrameReader.first_number`."""
        return self._files[0][1]

    @property
    def last_number(self) -> int:
        """See `FrameReader.last_number`."""
        return self._files[-1][1]

    @property
    def numbers(self) -> Sequence[int]:
        """See `FrameReader.numbers`."""
        return [number for _, number in self._files]

    def number_at(self, time_s: float) -> int:
        """See `FrameReader.number_at`."""
        place = math.ceil(round(time_s * self.fps, 3))
        return self._files[place][1] if place < len(self._files) else self.last_number + 1

    def keep_numbers(self, first: int, last: int | None) -> None:
        """See `FrameReader.keep_numbers`; the other pictures are not decoded."""
        kept = [(name, number) for name, number in self._files if number >= first and (last is None or number <= last)]
        self._skipped += sum(number < first for _, number in self._files)
        self.num_frames, self.begin_s = len(kept), self._skipped / self.fps
        self._number(kept)

    def read_as(self, other: FrameReader) -> None:
        """See `FrameReader.read_as`."""
        super().read_as(other)
        if isinstance(other, PictureFrames):
            self._skipped = other._skipped
            self._number(other._files)

    def __iter__(self) -> Iterator[SourceFrame]:
        for index, (name, number) in enumerate(self._files):
            url = join(self._folder, name)
            try:
                # The first one was not asked for while another one was tracked.
                image = self._decoder.answer() if index else self._decoder.call("read_picture", url)
            except LimitReached as error:
                self.problems.append(f"{redact(url)}: {error}")
                image = None
            except (BadItem, FileNotFoundError) as error:
                self.problems.append(str(error))
                image = None
            if index + 1 < len(self._files):
                self._decoder.ask("read_picture", join(self._folder, self._files[index + 1][0]))
            if image is not None:
                place = self._skipped + index
                yield SourceFrame(index=place, number=number, time_s=place / self.fps, image=image, file_name=name)

    def frame(self, number: int) -> SourceFrame:
        """See `FrameReader.frame`."""
        found = [(place, name) for place, (name, each) in enumerate(self._files) if each == number]
        if not found:
            raise InputError(f"{self.name}: no frame {number}: they are {self.first_number} to {self.last_number}")
        place, name = self._skipped + found[0][0], found[0][1]
        try:
            image = self._decoder.call("read_picture", join(self._folder, name))
        except LimitReached as error:
            raise BadItem(f"{redact(join(self._folder, name))}: {error}") from None
        return SourceFrame(index=place, number=number, time_s=place / self.fps, image=image, file_name=name)

    def close(self) -> None:
        """Free the decoder."""
        self._decoder.close()
