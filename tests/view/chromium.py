"""Debian's Chromium without a window, driven over a pipe by its own debugging protocol: nothing else is installed.

The protocol is JSON with a zero byte behind each message, on the descriptors 3 and 4 of the browser. What tests need of
it fits here: open a page, run an expression in it, press keys, take pictures, see what it asked for and complained of.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TIMEOUT_S = 120
"""Generous: two processes of a test suite may keep the machine busy."""

needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="needs a browser: apt-get install chromium")

_KEYS = {
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
    "Escape": 27,
    "Enter": 13,
    "Tab": 9,
    " ": 32,
}

# The pipe has to lie on the descriptors 3 and 4; the copies above them keep one from being written over.
_LAUNCHER = """
import fcntl, os, sys
read, write = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(read, 3), os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Page:
    """A tab of the browser.

    Args:
        browser: the process.
        write, read: the descriptors of the pipe.
    """

    def __init__(self, browser: subprocess.Popen[bytes], write: int, read: int) -> None:
        self._browser, self._write = browser, write
        self._number = 0
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._session = ""
        self.problems: list[str] = []
        """Exceptions, errors on the console, and what the content security policy refused."""
        self.requests: list[str] = []
        """Every address that was asked for."""
        threading.Thread(target=self._listen, args=(read,), daemon=True).start()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One call of the protocol; AssertionError where it fails."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                answer = self._answers.get(timeout=1)
            except queue.Empty:
                ended = self._browser.poll()
                assert ended is None, f"the browser ended with {ended} instead of answering {method}"
                assert time.monotonic() < deadline, f"the browser does not answer {method}"
                continue
            if answer["id"] == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                found: dict[str, Any] = answer["result"]
                return found

    def open(self, url: str) -> None:
        """Go to an address; answers before it is loaded, see `wait`."""
        failed = self.call("Page.navigate", url=url).get("errorText")
        assert not failed, f"{url}: {failed}"

    def run(self, expression: str) -> Any:
        """The value of an expression, or what its promise gives; AssertionError where it throws."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression: str) -> Any:
        """The first value of an expression that is true; while it throws, such as before the page is there, it is not.

        AssertionError where there is none in time.
        """
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
            if "exceptionDetails" not in found and (value := found["result"].get("value")):
                return value
            time.sleep(0.05)
        raise AssertionError(f"never true: {expression}; it is {found}; problems: {self.problems}")

    def press(self, key: str) -> None:
        """Press a key and let it go, wherever the focus is."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        code = _KEYS.get(key, ord(key[0].upper()))
        for kind, more in (("keyDown", text), ("keyUp", {})):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **more)

    def look(self, width: int, height: int, dark: bool = False) -> None:
        """Size of the window, and whether the system is dark."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        """What is to be seen, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def _listen(self, read: int) -> None:
        waiting = b""
        with contextlib.suppress(OSError), os.fdopen(read, "rb", buffering=0) as pipe:
            while piece := pipe.read(1 << 16):
                *messages, waiting = (waiting + piece).split(b"\0")
                for each in messages:
                    self._hear(json.loads(each))

    def _hear(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._answers.put(message)
            return
        said = message.get("params", {})
        if message["method"] == "Runtime.exceptionThrown":
            self.problems.append(str(said["exceptionDetails"].get("exception", said)))
        elif message["method"] == "Log.entryAdded" and said["entry"]["level"] == "error":
            self.problems.append(f"{said['entry']['text']} {said['entry'].get('url', '')}")
        elif message["method"] == "Runtime.consoleAPICalled" and said["type"] == "error":
            self.problems.append(str(said["args"]))
        elif message["method"] == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """A fresh browser with one tab, while the context lasts.

    Args:
        folder: empty; what the browser writes goes there.
    """
    assert PROGRAM is not None
    to_browser, write = os.pipe()
    read, from_browser = os.pipe()
    options = ["--headless=new", "--remote-debugging-pipe", f"--user-data-dir={folder}", "--no-first-run"]
    options += ["--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--hide-scrollbars"]
    options += ["--no-sandbox"] if os.geteuid() == 0 else []  # as root it does not start with one
    command = [sys.executable, "-c", _LAUNCHER, str(to_browser), str(from_browser), PROGRAM, *options, "about:blank"]
    browser = subprocess.Popen(
        command, pass_fds=(to_browser, from_browser), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(to_browser)
    os.close(from_browser)
    try:
        page = Page(browser, write, read)
        yield page
        with contextlib.suppress(AssertionError):
            page._session = ""
            page.call("Browser.close")
    finally:
        os.close(write)
        try:
            browser.wait(30)
        except subprocess.TimeoutExpired:
            browser.kill()
            browser.wait()
