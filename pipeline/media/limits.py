"""What one picture or video may hold, where a caller sets no other limit."""

from __future__ import annotations

MAX_PIXELS = 100_000_000
"""Of one frame: the default of `read.max_pixels`. Pictures of SA-1B have 3.4 million."""

MAX_FRAMES = 4_000_000
"""Of one video: the default of `read.max_frames`. 37 hours at 30 frames a second; 1.6 GB are known of so many."""
