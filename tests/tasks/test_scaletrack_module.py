"""ScaleTrack's batches and losses with a small network: who is compared, what is remembered, what padding does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.losses.slow_losses import chain_loops
from tests.scaletrack.small import small_model
from trackmill.models.scaletrack.model import ScaleTrack
from trackmill.pipeline.loader.clips import NEGATIVE, ClipExample
from trackmill.pipeline.tasks.scaletrack.batch import join_clips
from trackmill.pipeline.tasks.scaletrack.module import ScaleTrackTraining
from trackmill.pipeline.tasks.scaletrack.settings import LossSection
from trackmill.pipeline.training.recipe import make_recipe, make_task
from trackmill.schemas.config import ConfigError

SIDE = 64


def example(seed: int, ids: list[list[int]]) -> ClipExample:
    """A clip with a random box for each id of each frame; -1 is a pseudo-negative."""
    rng = np.random.default_rng(seed)
    boxes = []
    for frame in ids:
        corner = rng.uniform(0, 36, (len(frame), 2))
        boxes.append(np.concatenate([corner, corner + rng.uniform(10, 26, (len(frame), 2))], axis=1).astype(np.float32))
    count = np.arange(len(ids))
    return ClipExample(
        images=rng.integers(0, 255, (len(ids), SIDE, SIDE, 3), dtype=np.uint8),
        size=(SIDE, SIDE),
        boxes=tuple(boxes),
        ids=tuple(np.array(frame, np.int64) for frame in ids),
        origin=f"video {seed}",
        key=f"clip {seed}",
        frames=count,
        indices=count,
        times=count / 6,
    )


FOUR = example(0, [[0, 1, -1], [0, 1, 2, -1, -1], [0, 2], [0, 1, 2, -1]])
TWO = example(1, [[5, 6], [6, 5, -1]])
LONELY = example(2, [[0], [1], [0]])


def training(kind: str = "chain", network: ScaleTrack | None = None, **settings: Any) -> ScaleTrackTraining:
    loss = LossSection(kind=kind, **settings)  # type: ignore[arg-type]
    return ScaleTrackTraining(small_model() if network is None else network, (), loss)


def losses(module: ScaleTrackTraining, *examples: ClipExample, negatives: bool = True) -> dict[str, float]:
    values = module(join_clips(examples, negatives), torch.Generator().manual_seed(0))
    return {name: float(value.detach()) for name, value in values.items()}


def test_the_loss_is_that_of_the_network_s_own_embeddings() -> None:
    """Frame by frame as in inference, objects and pseudo-negatives alike, then the loops over the equations."""
    network = small_model()
    found = losses(training(network=network, layer_weights=(0.25, 2.0)), FOUR)
    frames = torch.from_numpy(FOUR.images).permute(0, 3, 1, 2).float() / 255
    rows = network.eval()(frames, [torch.from_numpy(each) for each in FOUR.boxes])
    ids = [torch.from_numpy(each) for each in FOUR.ids]
    numbers = torch.arange(len(rows)).repeat_interleave(torch.tensor([len(each) for each in ids]))
    negative, embeddings = torch.cat(ids) == NEGATIVE, torch.cat(rows)
    clip = (
        embeddings[~negative],
        numbers[~negative],
        torch.cat(ids)[~negative],
        embeddings[negative],
        numbers[negative],
    )
    expected, pairs = chain_loops(clip, 0.07)
    assert found["layer_2"] == pytest.approx(float(expected.detach()), rel=1e-4)
    assert found["total"] == pytest.approx(0.25 * found["layer_1"] + 2 * found["layer_2"], rel=1e-6)
    assert found["positives"] == pairs == 2 + 2 + 2
    assert found["chain_length_max"] == 4


def test_a_batch_is_the_mean_of_its_clips_whatever_their_lengths() -> None:
    module = training()
    alone = [losses(module, each)["total"] for each in (FOUR, TWO, LONELY)]
    assert alone[2] == 0
    assert losses(module, FOUR, TWO, LONELY)["total"] == pytest.approx(sum(alone) / 3, rel=1e-4)
    # The short clip was padded with frames that nobody sees.
    assert join_clips([FOUR, TWO]).images.shape == (2, 4, 3, SIDE, SIDE)


def test_a_clip_without_a_pair_does_no_harm() -> None:
    module = training()
    values = module(join_clips([LONELY]), torch.Generator())
    values["total"].backward()
    assert float(values["total"].detach()) == float(values["positives"]) == 0
    assert all(each.grad is None or not each.grad.any() for each in module.parameters())


def test_without_negatives_none_is_compared() -> None:
    module = training()
    bare = example(0, [[0, 1], [0, 1], [0, 1]])
    with_some = losses(module, FOUR)
    without = losses(module, FOUR, negatives=False)
    assert without["total"] < with_some["total"]
    assert losses(module, bare) == losses(module, bare, negatives=False)


def changed(clip: ClipExample, frame: int) -> ClipExample:
    """The same with other pixels in one frame."""
    images = clip.images.copy()
    images[frame] = 255 - images[frame]
    return ClipExample(**{**vars(clip), "images": images})


def test_the_broken_chain_remembers_its_pair_only() -> None:
    def embeddings(module: ScaleTrackTraining, clip: ClipExample) -> Tensor:
        seen: list[Tensor] = []
        encode = module.network.encode

        def record(*arguments: Any) -> Tensor:
            seen.append(encode(*arguments))
            return seen[-1]

        module.network.encode = record  # type: ignore[method-assign]
        losses(module, clip)
        module.network.encode = encode  # type: ignore[method-assign]
        return seen[0].detach()[-1]

    third = torch.from_numpy(np.repeat(np.arange(4), [len(each) for each in FOUR.ids]) == 2)
    moved = {
        kind: (embeddings(training(kind), FOUR) - embeddings(training(kind), changed(FOUR, 1)))[third].abs().max()
        for kind in ("chain", "broken_chain")
    }
    assert moved["chain"] > 1e-3
    assert moved["broken_chain"] == 0
    # The pairs (0, 1) and (2, 3), also where the number of frames is odd.
    assert losses(training("broken_chain"), FOUR)["positives"] == 4
    assert losses(training("broken_chain"), example(3, [[0], [0], [0]]))["positives"] == 1


def test_layers_draw_the_same_positives() -> None:
    """Of a network whose layers agree, global InfoNCE is equal in all of them."""
    module = training("global_infonce")
    encode = module.network.encode
    module.network.encode = lambda *arguments: encode(*arguments)[[1, 1]]  # type: ignore[method-assign]
    found = losses(module, FOUR, TWO)
    assert found["layer_1"] == found["layer_2"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"variant": "scaletrack_m"}}, "model.variant: there is no variant 'scaletrack_m'; did you mean"),
        ({"model": {"changes": {"windw": 3}}}, "model.changes: .*did you mean 'window'"),
        ({"model": {"changes": {"window": "three"}}}, "model.changes.window = 'three': should be int"),
        ({"model": {"changes": {"temporal": 1}}}, "model.changes.temporal = 1: should be bool"),
        ({"model": {"changes": {"heads": 7}}}, "model.changes: .*channels must be a multiple of heads"),
        ({"model": {"freeze": ["decodr"]}}, "model.freeze: .*did you mean 'decoder'"),
        ({"model": {"weights": "no_such_file.pth"}}, "model.weights: no file at .*no_such_file.pth"),
        ({"clips": {"size": 500}}, "clips.size = 500: .* multiples of 32, such as 512"),
        ({"loss": {"kind": "pairwise"}}, "clips.frames = 10: pairwise .* set clips.frames = 2"),
        ({"loss": {"layer_weights": [1.0]}}, "loss.layer_weights: 1 numbers for the 2 decoder layers"),
        ({"loss": {"layer_weights": [0, 0]}}, "loss.layer_weights: at least one has to be above 0"),
        ({"objects": {"masklets": False}}, "objects.chains: nothing says who is who"),
    ],
)
def test_what_does_not_go_together_is_said_with_its_key(changes: dict[str, Any], message: str) -> None:
    values: dict[str, Any] = {"task": "scaletrack", "model": {}, "clips": {"size": 320}}
    for section, keys in changes.items():
        values[section] = {**values.get(section, {}), **keys}
    values["model"] = {"variant": "scaletrack_lite0", **values["model"]}
    with pytest.raises(ConfigError, match=message):
        make_task(make_recipe(values, "case"))
