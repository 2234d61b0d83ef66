"""What can be wrong with a file of tracks or detections."""

from __future__ import annotations

from trackmill.schemas.errors import InputError


class BadTracks(InputError):
    """A track file that cannot be evaluated; the text names file and line (or key) and says how to mend it."""
