"""Joining a Ray cluster, or starting one on this machine."""

from __future__ import annotations

import logging
import os

import ray


def start_ray() -> None:
    """Join the cluster of `RAY_ADDRESS` (`ray job submit` sets it), or else start a Ray of our own on this machine."""
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
        return
    # Ray guards a local cluster with a token that it makes and finds by itself; that is no news to anybody.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    ray.init(address="local", log_to_driver=False, logging_level=logging.WARNING, include_dashboard=False)
