"""The one place where Ray is started or joined: patient with a slow machine, and never without an end.

A loaded machine may need minutes for what Ray waits half a minute for, and some of Ray's waits are fixed: then
`ray.init` raises, leaves half a cluster behind, and a second call often succeeds. Where a cluster does not answer it
waits for many minutes and cannot be interrupted. So it runs in a thread of its own, with a limit and one more try.

Everybody who can reach the ports of a Ray can run code with the rights of its user. So a Ray that a job starts listens
on this machine alone, requires a token that is valid for this process only, sends no usage statistics, and its workers
inherit no secrets but those of storage and telemetry.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import re
import secrets
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

import trackmill
from trackmill.pipeline.storage.credentials import scrub
from trackmill.pipeline.storage.secrets.values import is_secret_variable
from trackmill.schemas.errors import JobError

log = logging.getLogger("trackmill")

PATIENCE = {
    "RAY_raylet_start_wait_time_s": "180",
    "RAY_agent_register_timeout_ms": "180000",
    "RAY_gcs_server_port_wait_time_s": "180",
}
"""Variables that make Ray's processes wait longer for each other; what the user has set stays."""

_PRIVATE = {"RAY_USAGE_STATS_ENABLED": "0"}
_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Switched off, Ray's processes use 127.0.0.1 and listen there alone. On Windows and macOS that is Ray's default, so
that no firewall asks; `ray.init` itself turns a loopback address into one that others can reach."""
_NEEDED = re.compile(r"^(AWS_|FSSPEC_|GOOGLE_|GCS_|AZURE_|HF_|WANDB_|MLFLOW_|RAY_)")

_TRIES = 2
_CONNECT_S = 30.0
_NOTICE_S = 30.0
_HINT_S = 60.0
"""A cluster that needs longer to answer perhaps refuses the token: Ray then goes on trying."""
_LOOKS, _LOOK_S = 40, 0.05
"""How often, and seconds between, processes are looked for that a failed start left behind."""


class RayUnavailable(JobError):
    """Ray could not be started, or the cluster does not answer; the text names Ray's logs and a way without Ray."""


def start_ray(timeout_s: float = 600.0, without: str = "") -> None:
    """Join the cluster of `RAY_ADDRESS` (`ray job submit` sets it), or else start a Ray of our own on this machine.

    Workers of our own Ray import the code beside this driver, and modules of the folder that the driver runs in. They
    inherit the environment without what is called a secret there: only variables that storage, W&B and MLflow read, and
    those that `TRACKMILL_KEEP_ENV` names (`TRACKMILL_KEEP_ENV="MY_API_KEY OTHER_TOKEN"`), stay. How a cluster is
    guarded is the cluster's matter: `RAY_AUTH_MODE` has to be the same here as there.

    Args:
        timeout_s: limit of all tries together; a try that fails before it is repeated once.
        without: options that do the same work without Ray, for the error.

    Raises:
        RayUnavailable: it could not be had; one line that says what to do. Nothing that was started is left running.
    """
    deadline = time.monotonic() + timeout_s
    address = os.environ.get("RAY_ADDRESS", "")
    joining = bool(address) and address != "local"
    for name, value in {**PATIENCE, **_PRIVATE}.items():
        os.environ.setdefault(name, value)
    # Ray guards a local cluster with a token that it makes and finds by itself; that is no news to anybody.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    logging.getLogger("ray._private.worker").addFilter(_not_the_thread)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    if not joining:
        options |= {"address": "local", "include_dashboard": False}
    reason = ""
    for attempt in range(1, _TRIES + 1):
        before = {child.pid for child in _children()}
        try:
            with contextlib.nullcontext() if joining else _for_ourselves():
                if joining:
                    _check_answers(address, deadline)
                _init(options, deadline)
            return
        except TimeoutError as error:
            reason = str(error)
        except Exception as error:
            reason = _first_line(error)
        finally:
            if not _is_initialized():
                _end(before)
        if time.monotonic() >= deadline:
            break
        if attempt < _TRIES:
            log.warning("Ray could not be %s (%s); trying once more", "joined" if joining else "started", reason)
    instead = f"; without Ray: {without}" if without else ""
    if joining:
        raise RayUnavailable(
            f"the Ray cluster at RAY_ADDRESS={address} cannot be joined: {reason}; is it running? Without RAY_ADDRESS "
            f"a Ray is started on this machine{instead}"
        )
    raise RayUnavailable(f"Ray could not be started on this machine: {reason}; its logs: {_log_folder()}{instead}")


def _init(options: dict[str, Any], deadline: float) -> None:
    """Call `ray.init` in a thread.

    Raises:
        TimeoutError: it has not returned at the deadline; the thread is left behind.
        Exception: what `ray.init` raised.
    """
    import ray

    done: Future[None] = Future()

    def call() -> None:
        try:
            with _without_secret_words():
                ray.init(**options)
        except BaseException as error:
            with contextlib.suppress(Exception):
                ray.shutdown()
            done.set_exception(error)
            return
        done.set_result(None)
        # The kernel ends Ray's processes with the thread that started them, so it stays as long as this process does.
        threading.Event().wait()

    begin = time.monotonic()
    threading.Thread(target=call, name="Ray", daemon=True).start()
    while True:
        with contextlib.suppress(TimeoutError):
            return done.result(timeout=min(_NOTICE_S, max(0.0, deadline - time.monotonic())))
        if done.done():
            return done.result()
        if time.monotonic() >= deadline:
            # At the end of this process Ray would wait for the lock that the thread holds.
            atexit.unregister(ray.shutdown)
            raise TimeoutError(f"no answer in {time.monotonic() - begin:.0f} s")
        waited_s = time.monotonic() - begin
        joins = waited_s > _HINT_S and "RAY_ADDRESS" in os.environ
        hint = ": does it run, and is RAY_AUTH_TOKEN its own?" if joins else ""
        log.info("still waiting for Ray, since %.0f s%s", waited_s, hint)


@contextlib.contextmanager
def _without_secret_words() -> Iterator[None]:
    """Within, the command line has no signature and no password in it: Ray keeps it, and its dashboard shows it."""
    words = sys.argv
    sys.argv = [scrub(word) for word in words]
    try:
        yield
    finally:
        sys.argv = words


def _check_answers(address: str, deadline: float) -> None:
    """Raise `ConnectionError` where nothing listens at `host:port`, which Ray itself would try for many minutes."""
    try:
        place = urlsplit(address if "://" in address else f"//{address}")
        host, port = place.hostname, place.port
    except ValueError:
        raise ConnectionError("this is no host:port") from None
    if host is None or port is None:
        return  # `auto`, which Ray looks up by itself
    deadline = min(deadline, time.monotonic() + _CONNECT_S)
    while True:
        try:
            socket.create_connection((host, port), timeout=max(0.1, deadline - time.monotonic())).close()
            return
        except OSError as error:
            if time.monotonic() + 1 >= deadline:
                raise ConnectionError(f"nothing answers there ({_first_line(error)})") from None
        time.sleep(1)


@contextlib.contextmanager
def _for_ourselves() -> Iterator[None]:
    """The environment that Ray inherits: our own code first, this machine alone, no secrets but needed ones."""
    from ray._private import ray_constants

    root = Path(trackmill.__file__).resolve().parent.parent
    changes: dict[str, str | None] = {name: None for name in os.environ if _stays_here(name)}
    # An installed package is found anyway, and its folder in front would put every package before the standard library.
    if (root / "pipeline" / "ray_cluster.py").is_file():
        changes["PYTHONPATH"] = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    changes[_LOOPBACK] = "0"
    # Where nobody has set the mode, Ray wants tokens for a cluster that `ray.init` starts; setting it here would be too
    # late. Not the token of ~/.ray, which Ray writes where all users of this machine may read it.
    if os.environ.get("RAY_AUTH_MODE", "token").lower() == "token" and "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    before = {name: os.environ.get(name) for name in changes}
    was_reachable = ray_constants.ENABLE_RAY_CLUSTER
    _set(changes)
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = was_reachable
        _set(before)


def _stays_here(name: str) -> bool:
    """Whether a variable is a secret that workers have no need of."""
    kept = os.environ.get("TRACKMILL_KEEP_ENV", "").replace(",", " ").split()
    return is_secret_variable(name) and not _NEEDED.match(name) and name not in kept


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _is_initialized() -> bool:
    import ray

    return bool(ray.is_initialized())


def _children() -> list[psutil.Process]:
    children: list[psutil.Process] = psutil.Process().children(recursive=True)
    return children


def _end(before: set[int]) -> None:
    """End what a failed start left behind: `ray.shutdown` does not know of a cluster that never came to be."""
    for _ in range(_LOOKS):
        again = False
        for child in (each for each in _children() if each.pid not in before):
            with contextlib.suppress(psutil.Error):  # it has ended
                words = child.cmdline()
                if any("ray" in word for word in words):
                    child.kill()
                    again = True
                # For a moment, a process that begins has no words yet.
                again = again or not words
        if not again:
            return
        time.sleep(_LOOK_S)


def _log_folder() -> str:
    """Of the newest session that this process began; else where all sessions are."""
    folder = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or tempfile.gettempdir()) / "ray"
    sessions = sorted(folder.glob(f"session_*_{os.getpid()}"))
    return str(sessions[-1] / "logs" if sessions else folder)


def _first_line(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0].rstrip(" .:;")
    return text or type(error).__name__


def _not_the_thread(record: logging.LogRecord) -> bool:
    # The job has handlers of its own for signals, and wants none of Ray's.
    return "SIGTERM handler is not set" not in record.getMessage()
