"""Detection arithmetic one number at a time: what the tensor code is held against."""

import math

import torch

from trackmill.models.masa.losses.assigning import BACKGROUND, IGNORED, AssignSettings


def slow_anchors(height: int, width: int, stride: int) -> list[list[float]]:
    anchors = []
    for row in range(height):
        for column in range(width):
            for ratio in (0.5, 1.0, 2.0):  # height over width
                tall, wide = 8 * stride * math.sqrt(ratio), 8 * stride / math.sqrt(ratio)
                x, y = column * stride, row * stride
                anchors.append([x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2])
    return anchors


def slow_iou(a: list[float], b: list[float]) -> float:
    wide, tall = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if wide <= 0 or tall <= 0:
        return 0.0
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return wide * tall / (both - wide * tall)


def slow_nms(found: list[tuple[float, list[float]]], threshold: float) -> list[tuple[float, list[float]]]:
    kept: list[tuple[float, list[float]]] = []
    for score, box in sorted(found, key=lambda each: -each[0]):
        if all(slow_iou(box, other) <= threshold for _, other in kept):
            kept.append((score, box))
    return kept


def slow_decode(anchor: list[float], delta: list[float], height: int, width: int) -> list[float]:
    wide, tall = anchor[2] - anchor[0], anchor[3] - anchor[1]
    x, y = (anchor[0] + anchor[2]) / 2 + delta[0] * wide, (anchor[1] + anchor[3]) / 2 + delta[1] * tall
    limit = abs(math.log(16 / 1000))
    wide *= math.exp(min(max(delta[2], -limit), limit))
    tall *= math.exp(min(max(delta[3], -limit), limit))
    box = [x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2]
    return [min(max(value, 0.0), float(end)) for value, end in zip(box, (width, height, width, height))]


def slow_assign(boxes: torch.Tensor, truths: torch.Tensor, settings: AssignSettings) -> list[int]:
    table = [[slow_iou(truth, box) for box in boxes.tolist()] for truth in truths.tolist()]
    assigned = []
    for column in zip(*table):
        best = max(column)
        if best >= settings.positive:
            assigned.append(column.index(best))
        else:
            assigned.append(BACKGROUND if best < settings.negative else IGNORED)
    if settings.low_quality:
        for index, row in enumerate(table):
            if max(row) >= settings.least:
                for box, value in enumerate(row):
                    if value == max(row):
                        assigned[box] = index
    return assigned


def random_boxes(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * 40
    return torch.cat([low, low + 4 + torch.rand(count, 2, generator=generator) * 30], dim=1)
