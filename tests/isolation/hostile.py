"""What a child may meet in a stranger's file: functions that hang, crash, eat memory, raise or say too much."""

from __future__ import annotations

import ctypes
import os
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np


class Reader:
    """Does what its input says, and remembers how many calls it had."""

    def __init__(self, fails: bool = False) -> None:
        if fails:
            raise ValueError("no such\nsource")
        self.calls = 0

    def read(self, what: str) -> Any:
        self.calls += 1
        if what == "hang":
            while True:
                time.sleep(1)
        if what == "burn":
            while True:
                pass
        if what == "crash":
            os.abort()
        if what.startswith("crash once, "):
            marker = Path(what.removeprefix("crash once, "))
            if not marker.exists():
                marker.touch()
                os.abort()
        if what == "read address 0":
            ctypes.string_at(0)
        if what == "eat":
            return bytearray(1 << 40)
        if what == "eat in small pieces":
            eaten = []
            while True:
                eaten.append(b"x" * (1 << 16))
        if what == "exit":
            os._exit(3)
        if what == "raise":
            raise KeyError("odd\x1b[2J\nname")
        if what == "no pickle":
            return lambda: None
        return what.upper()

    def count(self) -> int:
        return self.calls

    def where(self) -> tuple[int, str, str]:
        return os.getpid(), os.getcwd(), os.environ.get("TRACKMILL_TESTED", "")

    def pixels(self, megabytes: int) -> np.ndarray:
        return np.full((megabytes, 1024, 1024), 7, np.uint8)

    def say(self, in_python: str, in_c: str) -> None:
        print(in_python)
        os.write(1, in_c.encode())
        os.write(2, in_c.encode())

    def caps(self) -> tuple[int, int]:
        return resource.getrlimit(resource.RLIMIT_DATA)[0], resource.getrlimit(resource.RLIMIT_AS)[0]
