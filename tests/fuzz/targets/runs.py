"""What training leaves: checkpoints that a run goes on from, and weights in every form that is read."""

from __future__ import annotations

import io
import json
from collections import OrderedDict
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from tests.fuzz.target import Files, Refused, Target, files_of


@cache
def _checkpoints() -> list[Files]:
    import torch

    from trackmill.pipeline.training.checkpoint import describe_checkpoint, save
    from trackmill.pipeline.training.engines.base import Engine, EngineState

    class Fixed:
        """An engine whose state is a few numbers that depend on the step."""

        def __init__(self, step: int) -> None:
            self.step = step

        def state(self) -> EngineState:
            values = {"head.weight": torch.arange(6.0).reshape(2, 3) + self.step, "head.bias": torch.ones(2)}
            moments = {f"{name}/exp_avg": each * 2 for name, each in values.items()}
            return EngineState(parameters=values, moments=moments, numbers={"steps": self.step})

    with TemporaryDirectory() as folder:
        for step in (8, 16):
            document = describe_checkpoint(
                step=step,
                seed=0,
                world=1,
                loader={"seed": 0, "batches_done": step, "epoch": 0, "batch_size": 4, "streams": 2, "window": 16},
                recipe={"name": "tiny", "optim": {"lr": 0.05}},
                digest="0" * 64,
                data={"url": "/data", "fingerprint": "1" * 64},
                frozen="",
            )
            averaged = {"head.weight": torch.zeros(2, 3)}
            save(folder, step, cast(Engine, Fixed(step)), averaged, document, keep=2)
        files = files_of(Path(folder))
    # What they say of this machine would make other seeds on another.
    return [files]


def _resume(folder: Path) -> object:
    from trackmill.pipeline.training.saved_checkpoint import find, read_state

    saved = find(str(folder))
    if saved is None:
        raise Refused(["checkpoints/step-00000016: nothing is left of it"])
    state, averaged = read_state(saved)
    if saved.step == 8:
        # The older one, whole, in place of the damaged one: as it should be.
        assert float(state.parameters["head.weight"][0, 0]) == 8 and saved.document.loader.batches_done == 8
        raise Refused(list(saved.damaged) or ["step-00000016: half of it was written, passed over"])
    # By name: safetensors gives them in another order each time.
    tensors = [sorted(each.items()) for each in (state.parameters, state.moments, averaged or {})]
    return saved.step, saved.document.model_dump(mode="json"), tensors, state.numbers


@cache
def _weights() -> list[Files]:
    import torch
    from safetensors.torch import save

    tensors = OrderedDict(
        [
            ("backbone.conv.weight", torch.arange(24.0).reshape(2, 3, 2, 2)),
            ("backbone.conv.bias", torch.zeros(2)),
            ("head.count", torch.tensor([3])),
            ("head.half", torch.ones(4, dtype=torch.float16)),
        ]
    )
    made: list[Files] = []
    for name, whole, modern in (
        ("plain.pth", tensors, True),
        ("wrapped.pth", {"state_dict": tensors, "meta": {"epoch": 1}}, True),
        ("legacy.pth", tensors, False),
    ):
        out = io.BytesIO()
        torch.save(whole, out, _use_new_zipfile_serialization=modern)
        made.append({name: out.getvalue()})
    facts = {"trackmill": json.dumps({"model": "masa_r50", "trained": {"steps": 3}})}
    made.append({"ours.safetensors": save(dict(tensors), facts)})
    return made


def _read_weights(folder: Path) -> object:
    from trackmill.models.weights.read import read_checkpoint

    (path,) = folder.iterdir()
    checkpoint: Any = read_checkpoint(path)
    return dict(checkpoint), checkpoint.metadata


ALL = (
    Target(
        name="checkpoint",
        seeds=_checkpoints,
        run=_resume,
        torch=True,
        mutated=("checkpoints/*",),
        covered="all",
        share=80,
    ),
    Target(name="weights", seeds=_weights, run=_read_weights, torch=True, share=100),
)
