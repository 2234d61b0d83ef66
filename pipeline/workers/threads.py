"""Threads of the libraries of one worker."""

from __future__ import annotations

import sys


def limit_threads(threads: int) -> None:
    """Keep the libraries of one worker to its share of the machine; 0 leaves them to Ray's OMP_NUM_THREADS."""
    if threads and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(threads or 1)
