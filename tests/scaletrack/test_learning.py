"""What training reaches, and that it learns: gradients, frozen parts, and clips that are learnt by heart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.scaletrack.small import clip, flat, small_model, some_boxes
from trackmill.models.association.scaletrack import ScaleTrackTracker
from trackmill.models.losses.chain import chain_contrastive_loss
from trackmill.models.scaletrack.model import ScaleTrack
from trackmill.pipeline.evaluation.metrics.hota import HotaCounts, hota
from trackmill.pipeline.evaluation.overlaps import find_overlaps
from trackmill.pipeline.evaluation.tracks import make_tracks
from trackmill.schemas.detections import Detections

STEPS = 14


def encoder_gradient(model: ScaleTrack, *, of_first: bool) -> Tensor:
    """Gradients of the encoder for a box of the second frame, through the first frame's maps or its own.

    The other frame's maps are cut off.
    """
    model.train()
    frames, box = clip(2, 64, 64), torch.tensor([[8.0, 8, 40, 50]])
    frame_of_box = torch.tensor([1])
    maps = model.backbone_maps(frames)
    seen = [level.clone().requires_grad_() for level in maps]
    model.encode_maps(seen, box, frame_of_box)[0][-1][0, 0].backward()
    gradient = torch.cat([(level.grad[0 if of_first else 1]).flatten() for level in seen if level.grad is not None])
    return gradient.abs().sum()


def test_gradients_reach_the_encoder_through_the_buffer() -> None:
    assert encoder_gradient(small_model(), of_first=True) > 1e-4
    assert encoder_gradient(small_model(), of_first=False) > 1e-4
    assert encoder_gradient(small_model(detach_history=True), of_first=True) == 0
    assert encoder_gradient(small_model(detach_history=True), of_first=False) > 1e-4
    assert encoder_gradient(small_model(temporal=False), of_first=True) == 0


def test_what_people_call_has_gradients_too() -> None:
    model = small_model()
    frames, boxes = clip(2), [torch.zeros(0, 4), *some_boxes([2])]
    model(frames, boxes)[1][0, 0].backward()
    projection = model.encoder.projections[-1].weight.grad  # type: ignore[union-attr]
    assert projection.abs().sum() > 0


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_backbone(frozen: bool) -> None:
    """Only what is not frozen learns, and a frozen backbone is never in training mode."""
    model = small_model(frozen=frozen).train()
    assert model.backbone.training != frozen
    assert model.encoder.training  # type: ignore[union-attr]
    boxes, frame_of_box = flat(some_boxes([2, 2], 64, 64))
    model.encode(clip(2, 64, 64)[None], boxes, frame_of_box)[..., 0].sum().backward()
    for name, parameter in model.named_parameters():
        learns = not (frozen and name.startswith("backbone."))
        assert parameter.requires_grad == learns
        assert (parameter.grad is not None) == learns, name
        assert parameter.grad is None or parameter.grad.abs().sum() > 0, name
    assert not model.eval().training


def moving_objects(seed: int, num_frames: int = 4, side: int = 64) -> tuple[Tensor, Tensor]:
    """A clip of four textured squares that move and grow darker: frames (T, 3, S, S) and boxes (T, 4, 4)."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.rand(num_frames, 3, side, side, generator=generator) * 0.1
    textures = 0.4 + 0.3 * torch.rand(4, 3, 4, 4, generator=generator)
    textures = torch.nn.functional.interpolate(textures, (14, 14))
    starts = torch.randint(0, 12, (4, 2), generator=generator) + torch.tensor([[0, 0], [32, 0], [0, 32], [32, 32]])
    steps = torch.randint(-2, 3, (4, 2), generator=generator)
    boxes = torch.zeros(num_frames, 4, 4)
    for t in range(num_frames):
        for index in range(4):
            x, y = (starts[index] + t * steps[index]).clamp(0, side - 14).tolist()
            noise = 0.05 * torch.rand(3, 14, 14, generator=generator)
            frames[t, :, y : y + 14, x : x + 14] = (textures[index] * (1 - 0.1 * t) + noise).clamp(0, 1)
            boxes[t, index] = torch.tensor([x, y, x + 14, y + 14])
    return frames, boxes


def tracked(model: ScaleTrack, clips: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Scores of ScaleTrack's own rule on the clips, given the boxes: AssA, HOTA and the like, in percent."""
    counts = HotaCounts.none()
    for frames, boxes in clips:
        tracker, stream = ScaleTrackTracker(), model.stream()
        num_frames, count = boxes.shape[:2]
        ids = []
        for t in range(num_frames):
            # Other scores in each frame, so that the order of detections says nothing.
            scores = np.roll(np.linspace(0.5, 0.9, count), t)
            detections = Detections(boxes=boxes[t].numpy(), scores=scores, labels=np.zeros(count, np.int64))
            ids.append(tracker.update(detections, stream.step(frames[t], boxes[t]), t))
        time, flat_boxes = np.repeat(np.arange(num_frames), count), boxes.flatten(0, 1).numpy()
        truth = make_tracks(time, np.tile(np.arange(count), num_frames), flat_boxes)
        counts += hota(find_overlaps(truth, make_tracks(time, np.concatenate(ids), flat_boxes), num_frames))
    return {name: 100 * score for name, score in counts.scores().items()}


def test_eight_clips_are_learnt_by_heart() -> None:
    """Trained on eight clips it links every object of these; fresh, it does not."""
    clips = [moving_objects(seed) for seed in range(8)]
    model = small_model(seed=3, dimensions=16)
    frames = torch.stack([each[0] for each in clips])
    boxes = torch.cat([each[1].flatten(0, 1) for each in clips])
    num_frames = frames.shape[1]
    frame_of_box = torch.arange(8 * num_frames).repeat_interleave(4)
    time, identity = frame_of_box[: 4 * num_frames], torch.arange(4).repeat(num_frames)
    none, nowhere = torch.zeros(0, model.dimensions), torch.zeros(0, dtype=torch.int64)
    before = tracked(model.eval(), clips)
    optimiser = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=3e-3)
    model.train()
    for _ in range(STEPS):
        layers = model.encode(frames, boxes, frame_of_box)
        losses = [
            chain_contrastive_loss(each, time, identity, none, nowhere)
            for layer in layers
            for each in layer.split(4 * num_frames)
        ]
        loss = torch.stack(losses).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    after = tracked(model.eval(), clips)
    assert after["AssA"] == pytest.approx(100)
    assert after["DetA"] == pytest.approx(100)  # nobody was left out
    assert before["AssA"] < 90
