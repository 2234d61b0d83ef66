"""Where the time goes: seconds in each stage of tracking, and the progress line that shows them as frames a second."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TextIO

from trackmill.pipeline.console.progress_line import ProgressLine, rate_text


class StageTimes:
    """Seconds spent in each stage, and how many frames went through it; stages stand in the order of their first use.

    A stage is whatever name somebody counts time under.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.num_frames: dict[str, int] = {}

    @contextlib.contextmanager
    def stage(self, name: str, num_frames: int = 0) -> Iterator[None]:
        """Count the time until the block ends, and `num_frames` then; `add_frames` adds what is known later."""
        self.seconds.setdefault(name, 0.0)
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - begin
            self.add_frames(name, num_frames)

    @contextlib.contextmanager
    def stage_unless_counted(self, name: str, num_frames: int = 0) -> Iterator[None]:
        """As `stage`, for a block that may count stages of its own: if it does, nothing is added to them."""
        before, begin = sum(self.num_frames.values()), time.perf_counter()
        try:
            yield
        finally:
            if sum(self.num_frames.values()) == before:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin
                self.add_frames(name, num_frames)

    def add_frames(self, name: str, num_frames: int) -> None:
        """Count frames of a stage whose number was not known when it began."""
        self.num_frames[name] = self.num_frames.get(name, 0) + num_frames

    def rates(self) -> str:
        """Such as `decode 310/s, detect 9,000/s, embed 4.2/s`; stages that saw no frame are left out."""
        seen = {name: count / max(self.seconds[name], 1e-9) for name, count in self.num_frames.items() if count}
        return ", ".join(f"{name} {rate_text(each)}" for name, each in seen.items())


class TrackingProgress(ProgressLine):
    """Frames done, how fast in all, and how fast each stage is.

    Args:
        total: frames expected; 0 where that is not known.
        times: filled by the run.
        interval_s, stream: see `ProgressLine`.
        video: which one of several is tracked; "" where there is one.
    """

    def __init__(
        self,
        total: int,
        times: StageTimes,
        interval_s: float = 3.0,
        stream: TextIO | None = None,
        video: str = "",
    ) -> None:
        super().__init__(total, "tracked", interval_s, stream, things="frames")
        self._times = times
        self._video = f"{video}: " if video else ""

    def _line(self, elapsed_s: float) -> str:
        rate = self.done / max(elapsed_s, 1e-9)
        text = f"{self._video}tracked {self.done:,} frames, {rate_text(rate)}"
        if self._total:
            left_s = max(0, self._total - self.done) / max(rate, 1e-9)
            of_all = f"tracked {self.done:,} of {self._total:,} frames"
            text = f"{self._video}{of_all}, {rate_text(rate)}, {left_s:,.0f} s left"
        return f"{text} ({self._times.rates()})"
