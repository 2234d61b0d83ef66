"""A window on the screen in which the tracked video can be watched while it is tracked."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from PIL import Image

from trackmill.pipeline.console.output import note
from trackmill.pipeline.tracking.drawing import DrawSettings, Trails, draw_tracks
from trackmill.pipeline.tracking.writers import TrackSink
from trackmill.schemas.errors import InputError, MissingPackage
from trackmill.schemas.tracking import SourceFrame, TrackedObjects

_LEAST_S = 1 / 30
"""Between two pictures: eyes want no more, and drawing takes time from tracking."""
_SHARE_OF_SCREEN = 0.9
_INSTEAD = "leave --show out, and watch the file of --save-video, which can be played while it is written"


def check_screen() -> None:
    """Find out whether a window can be opened, before anything is loaded.

    Raises:
        MissingPackage: this Python was built without tkinter; says what to install.
        InputError: there is no screen.
    """
    _open().destroy()


class Window(TrackSink):
    """Shows frames with their tracks, as large as they are, or as the screen allows; it opens with the first one.

    `q` and Escape stop the run, as Ctrl-C does: what was tracked is kept. A window that is closed stays closed, and
    tracking goes on.

    Args:
        title: of the window.
        settings: how tracks look.
    """

    draws = True

    def __init__(self, title: str, settings: DrawSettings | None = None) -> None:
        self._title = title
        self._settings = settings or DrawSettings()
        self._trails = Trails(self._settings.trail_frames)
        self._window: Any = None
        self._picture: Any = None
        self._closed = self._stopped = False
        self._shown_s = float("-inf")

    def write(self, frame: SourceFrame, tracked: TrackedObjects) -> None:
        """Show a frame, unless the one before it has just been shown.

        Raises:
            MissingPackage, InputError: see `check_screen`.
            KeyboardInterrupt: somebody pressed q or Escape.
        """
        if self._closed:
            return
        import tkinter

        if self._window is None:
            self._begin()
        try:
            self._show(frame, tracked)
        except tkinter.TclError as error:  # the screen is gone, with a connection for example; the results are not
            note(f"the window is gone ({error}); tracking goes on (Ctrl-C stops it)")
            self._close()
        if self._stopped:
            raise KeyboardInterrupt

    def _show(self, frame: SourceFrame, tracked: TrackedObjects) -> None:
        from PIL import ImageTk

        self._trails.add(frame.index, tracked)
        if time.monotonic() - self._shown_s >= _LEAST_S:
            drawn = Image.fromarray(draw_tracks(frame.image, tracked, self._trails, self._settings.labels))
            # It has to be kept: tkinter shows a picture only for as long as somebody holds it.
            self._picture = ImageTk.PhotoImage(self._fitted(drawn), master=self._window)
            self._label.configure(image=self._picture)
            self._shown_s = time.monotonic()
        self._window.update()

    def finish(self) -> str:
        """See `TrackSink.finish`."""
        self._close()
        return ""

    def keep(self) -> str:
        """See `TrackSink.keep`."""
        self._close()
        return ""

    def abandon(self) -> None:
        """See `TrackSink.abandon`."""
        self._close()

    def _begin(self) -> None:
        self._window = _open()
        self._window.title(f"{self._title} - q stops")
        self._window.resizable(False, False)
        self._window.protocol("WM_DELETE_WINDOW", self._close_by_hand)
        for key in ("q", "Q", "<Escape>"):
            self._window.bind(key, self._stop)
        import tkinter

        self._label = tkinter.Label(self._window, borderwidth=0)
        self._label.pack()

    def _fitted(self, picture: Image.Image) -> Image.Image:
        width = _SHARE_OF_SCREEN * self._window.winfo_screenwidth()
        height = _SHARE_OF_SCREEN * self._window.winfo_screenheight()
        factor = min(1.0, width / picture.width, height / picture.height)
        if factor == 1:
            return picture
        size = max(1, int(picture.width * factor)), max(1, int(picture.height * factor))
        return picture.resize(size, Image.Resampling.BILINEAR)

    def _stop(self, event: object) -> None:
        self._stopped = True

    def _close_by_hand(self) -> None:
        note("the window is closed; tracking goes on (Ctrl-C stops it)")
        self._close()

    def _close(self) -> None:
        self._closed = True
        if self._window is not None:
            import tkinter

            with contextlib.suppress(tkinter.TclError):  # it may be gone already
                self._window.destroy()
            self._window = self._picture = None


def _open() -> Any:
    try:
        import tkinter
    except ImportError as error:
        raise MissingPackage(
            f"--show: windows need tkinter, and this Python has none ({error}): install it (Debian and Ubuntu: "
            f"python3-tk), or {_INSTEAD}"
        ) from None
    try:
        return tkinter.Tk(className="trackmill")
    except tkinter.TclError as error:
        raise InputError(f"--show: there is no screen here ({error}); {_INSTEAD}") from None
