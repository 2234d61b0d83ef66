"""How far a training run is: the newest lines of its telemetry, and its checkpoints' documents."""

from __future__ import annotations

import math
import statistics
from typing import Any

import orjson

from trackmill.pipeline.status.commands import train_again
from trackmill.pipeline.status.holders import age_of, holders_of
from trackmill.pipeline.status.pace import Pace
from trackmill.pipeline.status.state import CheckpointSeen, Sign, Status
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.documents import DamagedDocument, read_document
from trackmill.pipeline.storage.file_times import FileTime, list_names, list_times, store_time
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.urls import join
from trackmill.pipeline.training.checkpoint_document import (
    DOCUMENT,
    DamagedCheckpoint,
    NewerCheckpoint,
    read_checkpoint_document,
    step_of,
)

_TAIL_BYTES = 64 << 10
"""What is read of the end of `metrics.jsonl`: some hundred steps."""
_CHECKPOINTS = 3
"""The newest so many are looked at."""
_TELEMETRY = ("metrics.jsonl", "evaluations.jsonl", "events.jsonl")
_SHOWN = ("loss", "lr", "grad_norm", "samples_per_s", "data_wait", "memory_bytes", "bad_samples")


def run_status(root: str, recipe: dict[str, Any]) -> Status:
    """How far a training run is.

    Args:
        root: its URL, spelt in full.
        recipe: what its `config.json` says.

    Raises:
        OSError: storage failed.
    """
    clock = store_time(root)
    files = list_times(root)
    by_name = {file.name: file for file in files}
    notes: list[str] = []
    rows = _tail(root, by_name.get("metrics.jsonl"))
    evaluations = _tail(root, by_name.get("evaluations.jsonl"))
    checkpoints, written = _checkpoints(root, clock.now)
    holders, signs = holders_of(root, files, clock.now)
    for name in _TELEMETRY:
        if name in by_name:
            age = age_of(by_name[name].modified, clock.now)
            signs.append(Sign(what=f"a line of {name}", age_s=age, progress=name != "events.jsonl"))
    signs += [Sign(what=f"the checkpoint of step {each.step:,}", age_s=each.age_s) for each in checkpoints[:1]]
    total = _total_steps(recipe)
    step = max([int(row["step"]) for row in rows[-1:]] + [each.step for each in checkpoints if not each.wrong] + [0])
    card = _card(root, notes)
    done = card is not None and card >= total > 0
    going = any(each.alive for each in holders)
    status = Status(
        kind="training run",
        url=redact(root),
        title=f"recipe {recipe.get('name') or '?'}, task {recipe.get('task', '?')}",
        state="going" if going else "done" if done else "stopped",
        things="steps",
        done=step,
        total=total or step,
        pace=_pace(rows, recipe, written),
        numbers=_numbers(rows, evaluations),
        checkpoints=checkpoints,
        holders=holders,
        signs=sorted(signs, key=lambda sign: sign.age_s),
        clock=clock.whose,
        notes=notes,
    )
    _conclude(status, recipe)
    return status


def _tail(root: str, file: FileTime | None) -> list[dict[str, Any]]:
    """The last rows with a step of a file of JSON lines, in order."""
    if file is None or not file.size:
        return []
    offset = max(0, file.size - _TAIL_BYTES)
    try:
        data = read_bytes(join(root, file.name), offset, file.size - offset)
    except OSError:  # it was cut back meanwhile: a resumed run writes it anew
        data = read_bytes(join(root, file.name))
        offset = 0
    rows = []
    for line in data.split(b"\n")[1 if offset else 0 :]:
        try:
            row = orjson.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def _checkpoints(root: str, now: float) -> tuple[list[CheckpointSeen], list[tuple[int, float]]]:
    """The newest checkpoints, the newest first; step and time of those that are whole."""
    folder = join(root, "checkpoints")
    names = sorted((name for name in list_names(folder) if step_of(name) >= 0), key=step_of, reverse=True)
    seen, written = [], []
    for name in names[:_CHECKPOINTS]:
        url = join(folder, name)
        files = {file.name: file for file in list_times(url)}
        wrong = _wrong(url, files)
        last = files.get(DOCUMENT) or max(files.values(), key=lambda file: file.modified, default=None)
        modified = last.modified if last is not None else math.nan
        size = sum(file.size for file in files.values())
        step = step_of(name)
        seen.append(
            CheckpointSeen(step=step, url=redact(url), age_s=age_of(modified, now), num_bytes=size, wrong=wrong)
        )
        if not wrong:
            written.append((step, modified))
    return seen, written


def _wrong(url: str, files: dict[str, FileTime]) -> str:
    """What is wrong with a checkpoint; lengths are compared, no tensor is read."""
    if DOCUMENT not in files:
        return "it is being written, or its writer was killed"
    try:
        document = read_checkpoint_document(url)
    except (DamagedCheckpoint, NewerCheckpoint) as error:
        return str(error)
    except FileNotFoundError:
        return "it was removed meanwhile"
    for name, record in document.files.items():
        size = files[name].size if name in files else None
        if size != record.bytes:
            return f"{name} has {'no' if size is None else f'{size:,}'} of {record.bytes:,} bytes"
    return ""


def _total_steps(recipe: dict[str, Any]) -> int:
    schedule = recipe.get("schedule", {})
    steps = schedule.get("steps", 0) if isinstance(schedule, dict) else 0
    limit = recipe.get("max_steps", 0)
    steps, limit = (value if isinstance(value, int) else 0 for value in (steps, limit))
    return min(steps, limit) if steps and limit else steps


def _pace(rows: list[dict[str, Any]], recipe: dict[str, Any], written: list[tuple[int, float]]) -> Pace:
    """Steps a second: of the last steps by what they took, and between checkpoints, evaluations and saving included."""
    data = recipe.get("data", {})
    batch = data.get("batch_size", 0) if isinstance(data, dict) else 0
    speeds = [row["samples_per_s"] for row in rows[-100:] if isinstance(row.get("samples_per_s"), (int, float))]
    recent = statistics.median(speeds) / batch if speeds and batch else None
    overall = None
    if len(written) > 1:
        (last, ended), (first, began) = written[0], written[-1]
        overall = (last - first) / (ended - began) if ended > began and last > first else None
    return Pace(recent=recent or None, overall=overall)


def _numbers(rows: list[dict[str, Any]], evaluations: list[dict[str, Any]]) -> dict[str, float]:
    newest = rows[-1] if rows else {}
    numbers = {name: float(newest[name]) for name in _SHOWN if isinstance(newest.get(name), (int, float))}
    for row in evaluations[-1:]:
        numbers["evaluation/step"] = float(row["step"])
        numbers |= {
            f"evaluation/{name}": float(value)
            for name, value in row.items()
            if name != "step" and isinstance(value, (int, float))
        }
    return numbers


def _card(root: str, notes: list[str]) -> int | None:
    """The step of the result, where there is one."""
    try:
        step = read_document(join(root, "final", "card.json")).get("step")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except DamagedDocument as error:
        notes.append(f"{error}: the same command writes it again")
        return None
    return step if isinstance(step, int) else None


def _conclude(status: Status, recipe: dict[str, Any]) -> None:
    wrong = [each for each in status.checkpoints if each.wrong]
    whole = [each for each in status.checkpoints if not each.wrong]
    for each in wrong if status.state != "going" else []:
        status.notes.append(f"checkpoint of step {each.step:,}: {each.wrong}; it is passed over")
    if status.state == "stopped" and whole and whole[0].step < status.done:
        lost = status.done - whole[0].step
        status.notes.append(f"{lost:,} steps since the last whole checkpoint are taken again")
    if status.state == "stopped" and not whole:
        status.notes.append("there is no whole checkpoint: it begins anew")
    if status.state == "done":
        status.next = f"use the weights: trackmill track --weights {status.url}/final/model.safetensors ..."
    elif status.state == "going":
        status.next = f"wait, or look again: trackmill status {status.url} --watch 30"
    else:
        status.next = train_again(recipe, status.url)
