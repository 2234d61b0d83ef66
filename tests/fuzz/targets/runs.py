"""What training leaves: checkpoints that a run goes on from, and weights in every form that is read; vocabularies."""

from __future__ import annotations

import io
import json
import warnings
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


@cache
def _archives() -> list[Files]:
    """Of torch.jit.save: modules within modules, in half precision."""
    import torch

    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Sequential(torch.nn.LayerNorm(3)))
    with torch.no_grad():
        for number, each in enumerate(network.parameters()):
            each.copy_(torch.arange(each.numel()).reshape(each.shape) + number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(network, torch.ones(1, 2))
        made: list[Files] = []
        for name, module in (("single.pt", traced), ("half.pt", traced.half())):
            out = io.BytesIO()
            torch.jit.save(module, out)
            made.append({name: out.getvalue()})
    return made


@cache
def _vocabularies() -> list[Files]:
    """Vectors and names in every form that `--classes` takes as a file."""
    import numpy as np

    from trackmill.models.detic.vocabulary import Vocabulary
    from trackmill.pipeline.vocabulary import vocabulary_bytes

    vectors = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    plain, packed = io.BytesIO(), io.BytesIO()
    np.save(plain, vectors.astype(np.float16))
    np.savez_compressed(packed, embeddings=vectors, names=np.array(["person", "dog", "café"]))
    return [
        {"classes.npz": vocabulary_bytes(Vocabulary(vectors, ("person", "dog", "café")).made_by("weights 1"))},
        {"classes.npz": packed.getvalue()},
        {"classes.npy": plain.getvalue(), "classes.txt": b"person\n# of ours\ndog\r\ncaf\xc3\xa9\n"},
    ]


def _read_vocabulary(folder: Path) -> object:
    from trackmill.pipeline.vocabulary import read_class_names, read_vocabulary

    path = next((each for each in folder.iterdir() if each.suffix != ".txt"), folder / "classes.npy")
    vocabulary = read_vocabulary(str(path))
    assert read_class_names(str(path)) == vocabulary.names or not vocabulary.is_named
    return vocabulary.embeddings, vocabulary.names, vocabulary.recipe


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
    Target(name="torchscript", seeds=_archives, run=_read_weights, torch=True, share=60, covered="bytes"),
    Target(name="vocabulary", seeds=_vocabularies, run=_read_vocabulary, others=(FileNotFoundError,), share=60),
)
