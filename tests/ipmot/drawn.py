"""A small IP-MOT whose weights are all drawn, so that scores lie on both sides of the threshold, and a film for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trackmill.models.ipmot.model import IpMot
from trackmill.models.ipmot.sizes import DetectorSizes
from trackmill.models.ipmot.variants import Variant

SMALL = Variant(
    name="ip_mot_tiny",
    detector=DetectorSizes(
        backbone="ssdlite_mobilenet",
        hidden=32,
        heads=4,
        points=2,
        levels=3,
        encoder_layers=1,
        decoder_layers=2,
        feedforward=48,
        queries=12,
    ),
    embedding=24,
    min_area=1.0,
    miss_tolerance=2,
    short_side=64,
    long_side=96,
)
PLAIN = replace(SMALL, detector=replace(SMALL.detector, form="plain"))


def small_model(variant: Variant = SMALL, seed: int = 0, **changes: Any) -> IpMot:
    """In evaluation mode, without gradients."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = IpMot(replace(variant, **changes)).eval().requires_grad_(False)
    for name, values in model.named_parameters():
        if not name.startswith("detector.backbone"):
            values += 0.2 * torch.randn(values.shape, generator=generator)
    for head in model.detector.class_embed:
        head.bias.zero_()
    if model.deduplication is not None:
        model.deduplication.mlp[-1].bias.fill_(2.0)  # type: ignore[union-attr,operator]
    return model


def small_film(count: int = 8, height: int = 48, width: int = 80, seed: int = 0) -> list[NDArray[np.uint8]]:
    """(H, W, 3) pictures in which much changes from one to the next."""
    generator = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        coarse = generator.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
        images.append(coarse.repeat(16, axis=0).repeat(16, axis=1))
    return images
