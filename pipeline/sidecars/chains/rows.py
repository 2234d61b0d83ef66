"""The rows of the sidecar: columns, how links become rows, and what rows can never be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from trackmill.pipeline.sidecars.chains.counts import CHAINS, KEPT, SHORT
from trackmill.pipeline.sidecars.chains.frames import LinkedFrames
from trackmill.pipeline.sidecars.chains.link import Links
from trackmill.pipeline.sidecars.chains.settings import PROPOSALS, VideoChainSettings
from trackmill.pipeline.sidecars.columns import Column
from trackmill.pipeline.sidecars.producer import Rows

COLUMNS: tuple[Column, ...] = (
    Column(name="chain", dtype="int32", description="Number of the chain in its sample, from 0, by first frame."),
    Column(name="box", dtype="box", unit="px", description="The box, cut at the border of the frame."),
    Column(name="score", dtype="float32", description="Its confidence, 0..1."),
    Column(
        name="iou",
        dtype="float32",
        description="Least IoU of the links from the chain's box a stored frame earlier; 0 where it begins.",
    ),
    Column(name="links", dtype="int32", description="Number of these links; more than 1: through frames between."),
    Column(name="shot", dtype="int32", description="Number of the shot that the frame is in, from 0."),
    Column(name="label", dtype="string", description="Name of the class; empty where there is none."),
    Column(name="proposal", dtype="int32", description="Index among the frame's stored proposals; -1: none."),
    Column(
        name="source",
        dtype="string",
        description="Whose box it is: detections:DETECTOR, proposals, or sidecar:NAME.",
    ),
)


def chain_rows(
    frames: LinkedFrames, links: Links, config: VideoChainSettings, source: str, counts: Counter[str]
) -> dict[str, Any]:
    """Rows of the boxes of stored frames whose chains are long enough.

    Args:
        frames: the frames that were linked.
        links: their links.
        config: the settings.
        source: whose boxes they are, as column `source` says it.
        counts: rows, chains, and boxes of chains that are too short are added here.

    Returns:
        Arrays by column, by frame and by chain inside it.
    """
    num_chains = 1 + max((int(own.max()) for own in links.chains if len(own)), default=-1)
    lengths = np.zeros(num_chains, np.int64)
    for place, own in zip(frames.stored, links.chains):
        lengths[own] += place >= 0
    # Numbered anew by the first stored frame, which is where a trainer meets them.
    number = np.full(num_chains, -1, np.int64)
    least, steps = np.ones(num_chains, np.float32), np.zeros(num_chains, np.int64)
    shots = np.cumsum(np.append(0, frames.cuts))
    first_shots: dict[int, int] = {}
    found: dict[str, list[Any]] = {name: [] for name in ("frame", *(column.name for column in COLUMNS))}
    begun = 0
    for t, place in enumerate(frames.stored):
        own, iou = links.chains[t], links.ious[t]
        least[own] = np.minimum(least[own], np.where(iou > 0, iou, 1))
        steps[own] += iou > 0
        if place < 0:
            continue
        shot = first_shots.setdefault(int(shots[t]), len(first_shots))
        for i in np.flatnonzero(lengths[own] >= config.min_length).tolist():
            chain = own[i]
            begins = number[chain] < 0
            if begins:
                number[chain], begun = begun, begun + 1
            proposal = int(frames.numbers[t][i]) if config.boxes == PROPOSALS else -1
            link = (0.0, 0) if begins else (float(least[chain]), int(steps[chain]))
            row = (place, number[chain], frames.boxes[t][i], frames.scores[t][i], *link, shot)
            for name, value in zip(found, (*row, frames.labels[t][i], proposal, source)):
                found[name].append(value)
        counts[SHORT] += int((lengths[own] < config.min_length).sum())
        least[own], steps[own] = 1, 0
    counts[KEPT], counts[CHAINS] = len(found["frame"]), begun
    return _ordered(found)


def wrong_chains(config: VideoChainSettings, rows: Rows) -> Iterator[str]:
    """What is wrong with rows: a chain is once in a frame, in one shot, and linked as the settings say."""
    frames, chains, shots = rows["frame"], rows["chain"], rows["shot"]
    order = np.lexsort((frames, chains))
    frames, chains, shots = frames[order], chains[order], shots[order]
    ious, links = rows["iou"][order], rows["links"][order]
    same = np.diff(chains) == 0
    begins = np.append(True, ~same)[: len(chains)]
    for row in np.flatnonzero(same & (np.diff(frames) == 0))[:1]:
        yield f"chain {chains[row]} occurs twice in frame {frames[row]}"
    for row in np.flatnonzero(same & (np.diff(shots) != 0))[:1]:
        yield f"chain {chains[row]} leads from shot {shots[row]} into shot {shots[row + 1]}"
    for row in np.flatnonzero(same & (np.diff(frames) > config.bridge + 1))[:1]:
        yield f"chain {chains[row]} misses more frames behind {frames[row]} than bridge={config.bridge} allows"
    low = np.where(begins, ious != 0, (ious < np.float32(config.min_iou)) | (ious > 1))
    for row in np.flatnonzero(low)[:1]:
        yield f"iou {ious[row]:g} of chain {chains[row]} in frame {frames[row]} cannot be"
    for row in np.flatnonzero(begins != (links == 0))[:1]:
        yield f"chain {chains[row]} has {links[row]} links in frame {frames[row]}, which cannot be"
    for row in np.flatnonzero(rows["score"] < np.float32(config.min_score))[:1]:
        yield f"a score of frame {rows['frame'][row]}, {rows['score'][row]:g}, is below {config.min_score}"
    first = rows["frame"][np.unique(rows["chain"], return_index=True)[1]]
    lengths = np.bincount(chains) if len(chains) and chains.min() >= 0 else np.zeros(0, np.int64)
    if len(chains) and (not len(lengths) or (lengths < config.min_length).any() or (np.diff(first) < 0).any()):
        yield "its chains are not numbered from 0 by their first frames, or one is too short"


def _ordered(found: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Rows as arrays, by frame and by chain inside it."""
    frames, chains = np.array(found["frame"], np.int32), np.array(found["chain"], np.int32)
    order = np.lexsort((chains, frames))
    rows: dict[str, Any] = {}
    for name, values in found.items():
        if name in ("label", "source"):
            rows[name] = [values[i] for i in order.tolist()]
        else:
            dtype = np.float32 if name in ("box", "score", "iou") else np.int32
            rows[name] = np.array(values, dtype).reshape(-1, *([4] if name == "box" else []))[order]
    return rows
