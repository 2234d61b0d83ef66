"""The Ray that a job would join or start: address, authentication, versions, resources."""

from __future__ import annotations

import os
import stat
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from trackmill.pipeline.doctor.asking import NoAnswer, ask_python
from trackmill.pipeline.doctor.finding import Finding, Level
from trackmill.pipeline.storage.credentials import scrub

_JOIN = """
import logging; logging.disable(logging.WARNING)
from trackmill.pipeline.ray_cluster import RayUnavailable, start_ray
answer = {"error": "", "nodes": [], "gpus": 0.0, "cpus": 0.0}
try:
    start_ray(TIMEOUT)
    import ray
    have = ray.cluster_resources()
    answer["cpus"], answer["gpus"] = have.get("CPU", 0.0), have.get("GPU", 0.0)
    answer["nodes"] = [node["Alive"] for node in ray.nodes()]
    ray.shutdown()
except RayUnavailable as error:
    answer["error"] = str(error)
"""
_MODES = ("token", "disabled")


def check_cluster(timeout_s: float) -> list[Finding]:
    """What `RAY_ADDRESS` and the variables of authentication say, and whether the cluster answers."""
    try:
        installed = version("ray")
    except PackageNotFoundError:
        said = "Ray is not installed: --executor inline and --part work without it"
        return [Finding(about="ray", level=Level.NOTE, said=said)]
    address = os.environ.get("RAY_ADDRESS", "")
    found = check_authentication(address)
    if not address or address == "local":
        said = f"Ray {installed}; RAY_ADDRESS is not set, so a job starts a Ray of its own on this machine"
        return [*found, Finding(about="ray", said=said)]
    if any(each.level is Level.FAULT for each in found):
        return found
    shown = scrub(address)
    try:
        answer = ask_python(_JOIN.replace("TIMEOUT", str(timeout_s)), timeout_s + 30)
    except NoAnswer as error:
        answer = {"error": str(error)}
    return [*found, judge(shown, installed, answer)]


def judge(address: str, installed: str, answer: dict[str, Any]) -> Finding:
    """What became of joining a cluster."""
    if error := scrub(answer["error"]):
        mend = (
            "see that the cluster runs, that its Ray and Python are the same versions as here, its port is open, and "
            "RAY_AUTH_TOKEN is its own (a wrong one gets no answer)"
        )
        if "version" in error.lower():
            mend = f"install the cluster's versions here, or ours ({installed}) there: they must be the same"
        elif "auth" in error.lower() or "token" in error.lower():
            mend = "set RAY_AUTH_MODE and RAY_AUTH_TOKEN as the cluster has them"
        said = error if address in error else f"{address}: {error}"
        return Finding(about="ray", level=Level.FAULT, said=said, mend=mend)
    alive, dead = answer["nodes"].count(True), answer["nodes"].count(False)
    said = (
        f"Ray {installed}; {address}: {alive} node{'s' if alive != 1 else ''}, {answer['cpus']:g} CPUs, "
        f"{answer['gpus']:g} GPUs{f', {dead} nodes are gone' if dead else ''}"
    )
    if not answer["cpus"]:
        mend = "add worker nodes, or wait until the autoscaler has: the head alone offers no CPU"
        return Finding(about="ray", level=Level.WARNING, said=said, mend=mend)
    return Finding(about="ray", said=said)


def check_authentication(address: str, environment: dict[str, str] | None = None) -> list[Finding]:
    """Whether the variables say how to authenticate, and the token is there and nobody else's to read.

    Args:
        address: `RAY_ADDRESS`.
        environment: of the process; None: its own.
    """
    given = dict(os.environ) if environment is None else environment
    mode = given.get("RAY_AUTH_MODE", "").lower()
    token, path = given.get("RAY_AUTH_TOKEN", ""), given.get("RAY_AUTH_TOKEN_PATH", "")
    if mode and mode not in _MODES:
        mend = f"RAY_AUTH_MODE is {' or '.join(_MODES)}"
        return [Finding(about="ray token", level=Level.FAULT, said=f"RAY_AUTH_MODE={mode[:40]}", mend=mend)]
    if not address or address == "local":
        return []
    if not mode:
        mend = "export RAY_AUTH_MODE=token and the cluster's RAY_AUTH_TOKEN, on head, workers and here"
        said = "RAY_AUTH_MODE is not set: whether this process may join depends on files of this user"
        return [Finding(about="ray token", level=Level.WARNING, said=said, mend=mend)]
    if mode == "disabled":
        mend = "use RAY_AUTH_MODE=token, unless nobody else is on the network"
        said = "authentication is off: who reaches the head's port can run code with your credentials"
        return [Finding(about="ray token", level=Level.WARNING, said=said, mend=mend)]
    home = Path(given.get("HOME", "~")).expanduser() / ".ray" / "auth_token"
    file = Path(path) if path else home
    if not token and not file.is_file():
        said = f"RAY_AUTH_MODE=token, but neither RAY_AUTH_TOKEN nor {file} holds a token"
        mend = "export RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH with the file of the cluster's token"
        return [Finding(about="ray token", level=Level.FAULT, said=said, mend=mend)]
    if not token and file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        said = f"{file} can be read by other users of this machine"
        return [Finding(about="ray token", level=Level.WARNING, said=said, mend=f"chmod 600 {file}")]
    said = "authentication by token, which is set; only joining shows whether it is the cluster's"
    return [Finding(about="ray token", said=said)]
