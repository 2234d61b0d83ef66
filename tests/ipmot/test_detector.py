"""The detector in small: against plain loops, with padding, in both forms, in half precision, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.ipmot.small_detector import batch_of, small_detector
from tests.scaletrack.test_size import Watch
from trackmill.models.ipmot.detector import DeformableDetr
from trackmill.models.ipmot.positions import inverse_sigmoid, level_masks, map_embedding, valid_ratios
from trackmill.models.ipmot.queries import Queries
from trackmill.models.ipmot.sizes import DetectorSizes

Array = NDArray[np.float64]


def pictures(*sizes: tuple[int, int], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, *size, generator=generator) for size in sizes]


def plain_linear(layer: Any, values: Array) -> Array:
    return values @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()


def plain_norm(layer: Any, values: Array) -> Array:
    centred = values - values.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + layer.eps)
    return scaled * layer.weight.detach().double().numpy() + layer.bias.detach().double().numpy()


def plain_mlp(mlp: Any, values: Array) -> Array:
    for layer in mlp.layers[:-1]:
        values = np.maximum(plain_linear(layer, values), 0)
    return plain_linear(mlp.layers[-1], values)


def softmax(values: Array) -> Array:
    shares = np.exp(values - values.max())
    return shares / shares.sum()


def bilinear(cells: Array, x: float, y: float) -> Array:
    """A map (h, w, C) at x, y in 0..1, zero outside."""
    height, width, channels = cells.shape
    column, row = x * width - 0.5, y * height - 0.5
    total = np.zeros(channels)
    for i in (math.floor(row), math.floor(row) + 1):
        for j in (math.floor(column), math.floor(column) + 1):
            if 0 <= i < height and 0 <= j < width:
                total += (1 - abs(row - i)) * (1 - abs(column - j)) * cells[i, j]
    return total


def plain_layer(
    detector: DeformableDetr, index: int, content: Array, references: Array, memory: Array, maps: Any
) -> Array:
    """One decoder layer of the dab form for one picture without padding: (Q, D), a query, head and point at a time."""
    sizes, layer = detector.sizes, detector.transformer.decoder.layers[index]
    width, heads, points = sizes.hidden, sizes.heads, sizes.points
    each = width // heads
    embedded = np.zeros((len(content), 2 * width))
    for query in range(len(content)):
        numbers = []
        for place in (1, 0, 2, 3) if sizes.conventions == "coco" else (0, 1, 2, 3):
            for pair in range(width // 4):
                angle = references[query, place] * 2 * math.pi / 10000 ** (2 * pair / (width // 2))
                numbers += [math.sin(angle), math.cos(angle)]
        embedded[query] = numbers
    position = plain_mlp(detector.transformer.decoder.ref_point_head, embedded)
    if index:
        position = position * plain_mlp(detector.transformer.decoder.query_scale, content)

    weight = layer.self_attn.in_proj_weight.detach().double().numpy()
    bias = layer.self_attn.in_proj_bias.detach().double().numpy()
    asked = content + position
    q, k = (asked @ weight[part].T + bias[part] for part in (slice(0, width), slice(width, 2 * width)))
    v = content @ weight[2 * width :].T + bias[2 * width :]
    attended = np.zeros_like(content)
    for query in range(len(content)):
        for head in range(heads):
            own = slice(head * each, (head + 1) * each)
            shares = softmax(
                np.array([q[query, own] @ k[other, own] for other in range(len(content))]) / math.sqrt(each)
            )
            attended[query, own] = shares @ v[:, own]
    content = plain_norm(layer.norm2, content + plain_linear(layer.self_attn.out_proj, attended))

    cross = layer.cross_attn
    values = plain_linear(cross.value_proj, memory)
    starts = np.cumsum([0] + [h * w for h, w in maps.shapes])
    asked = content + position
    offsets = plain_linear(cross.sampling_offsets, asked).reshape(len(content), heads, sizes.levels, points, 2)
    weights = plain_linear(cross.attention_weights, asked).reshape(len(content), heads, sizes.levels * points)
    read = np.zeros_like(content)
    for query in range(len(content)):
        x, y, w, h = references[query]
        for head in range(heads):
            shares = softmax(weights[query, head]).reshape(sizes.levels, points)
            for level, (rows, columns) in enumerate(maps.shapes):
                cells = values[starts[level] : starts[level + 1], head * each : (head + 1) * each]
                for point in range(points):
                    dx, dy = offsets[query, head, level, point] / points / 2
                    found = bilinear(cells.reshape(rows, columns, each), x + dx * w, y + dy * h)
                    read[query, head * each : (head + 1) * each] += shares[level, point] * found
    content = plain_norm(layer.norm1, content + plain_linear(cross.output_proj, read))
    inner = plain_linear(layer.linear2, np.maximum(plain_linear(layer.linear1, content), 0))
    return plain_norm(layer.norm3, content + inner)


@pytest.mark.parametrize("conventions", ["coco", "memotr"])
def test_decoder_layers_are_those_of_plain_loops(conventions: Any) -> None:
    detector = small_detector(queries=4, levels=2, conventions=conventions)
    image, mask = batch_of(pictures((32, 64)))
    with torch.no_grad():
        maps = detector.encode(image, mask)
        queries = detector.detect_queries()
        decoded = detector.decode(maps, queries)
    memory = maps.memory[0].double().numpy()
    content = queries.content.detach().double().numpy()
    references = queries.reference.detach().double().sigmoid().numpy()
    clamp = 1e-3 if conventions == "coco" else 1e-5
    for index in range(detector.sizes.decoder_layers):
        content = plain_layer(detector, index, content, references, memory, maps)
        np.testing.assert_allclose(decoded.hidden[index, 0].numpy(), content, atol=2e-4)
        logits = plain_linear(detector.class_embed[index], content)
        np.testing.assert_allclose(decoded.logits[index, 0].numpy(), logits, atol=5e-4)
        clipped = np.log(np.maximum(references, clamp) / np.maximum(1 - references, clamp))
        references = 1 / (1 + np.exp(-(plain_mlp(detector.bbox_embed[index], content) + clipped)))
        np.testing.assert_allclose(decoded.boxes[index, 0].numpy(), references, atol=2e-4)


def test_a_picture_gives_the_same_alone_and_padded() -> None:
    """Where nothing but masks, valid ratios and positions know of the padding.

    Two parts of the published network do: group norms, which are left out here, and the anchor's embedding of the dab
    form, which is in 0..1 of the padded map (`Decoder.positions`). The reference numbers hold both.
    """
    detector = small_detector(form="plain", levels=2)
    for each in detector.input_proj:
        each[1] = torch.nn.Identity()
    small, large = pictures((32, 48), (64, 80))
    images, masks = batch_of([small, large])
    with torch.no_grad():
        together = detector(images, masks)
        for number, picture in enumerate((small, large)):
            alone = detector(*batch_of([picture]))
            torch.testing.assert_close(together["pred_logits"][number], alone["pred_logits"][0], atol=1e-4, rtol=0)
            torch.testing.assert_close(together["pred_boxes"][number], alone["pred_boxes"][0], atol=1e-5, rtol=0)
        images[0, :, 32:] = 5.0
        again = detector(images, masks)
    torch.testing.assert_close(again["pred_boxes"], together["pred_boxes"], atol=1e-5, rtol=0)


def test_what_forward_gives() -> None:
    detector = small_detector(decoder_layers=3, queries=7, classes=2)
    with torch.no_grad():
        found = detector(*batch_of(pictures((33, 50), (40, 47))))  # sides of no divisor
    assert set(found) == {"pred_logits", "pred_boxes", "aux"} and len(found["aux"]) == 2
    for each in (found, *found["aux"]):
        assert each["pred_logits"].shape == (2, 7, 2) and each["pred_boxes"].shape == (2, 7, 4)
        assert each["pred_boxes"].min() > 0 and each["pred_boxes"].max() < 1


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_levels_are_the_deepest_maps_and_halvings(levels: int) -> None:
    detector = small_detector(levels=levels)
    with torch.no_grad():
        maps, masks = detector.pyramid(*batch_of(pictures((64, 96))))
    shapes = [tuple(each.shape[2:]) for each in maps]
    assert shapes == [(8, 12), (4, 6), (2, 3), (1, 2)][-levels - 2 :][:levels] if levels > 2 else shapes[-1] == (4, 6)
    assert [tuple(each.shape[1:]) for each in masks] == shapes


def test_memotr_pads_to_multiples_of_32() -> None:
    detector = small_detector(conventions="memotr", levels=2)
    picture = pictures((32, 48))[0]
    padded = torch.zeros(1, 3, 32, 64)
    padded[0, :, :, :48] = picture
    mask = torch.ones(1, 32, 64, dtype=torch.bool)
    mask[:, :, :48] = False
    with torch.no_grad():
        ours, theirs = detector(*batch_of([picture])), detector(padded, mask)
    torch.testing.assert_close(ours["pred_boxes"], theirs["pred_boxes"], atol=0, rtol=0)


def test_separate_layers_leave_track_queries_as_they_are() -> None:
    """MeMOTR's: in these layers detect queries see only each other, and tracks keep content and reference."""
    detector = small_detector(separate_first_layers=1, queries=6)
    joint = small_detector(separate_first_layers=0, queries=6)
    generator = torch.Generator().manual_seed(3)
    tracks = Queries(content=torch.randn(3, 16, generator=generator), reference=torch.randn(3, 4, generator=generator))
    with torch.no_grad():
        maps = detector.encode(*batch_of(pictures((32, 48))))
        queries = detector.detect_queries().followed_by(tracks)
        found, alone = detector.decode(maps, queries, 6), detector.decode(maps, detector.detect_queries())
        together = joint.decode(maps, queries, 6)
    torch.testing.assert_close(found.hidden[0, 0, 6:], tracks.content, atol=0, rtol=0)
    torch.testing.assert_close(found.hidden[0, :, :6], alone.hidden[0], atol=1e-6, rtol=0)
    moved = detector.bbox_embed[0](tracks.content) + inverse_sigmoid(tracks.reference.sigmoid(), 1e-3)
    torch.testing.assert_close(found.boxes[0, 0, 6:], moved.sigmoid(), atol=1e-6, rtol=0)
    assert (together.hidden[0, :, :6] - alone.hidden[0]).abs().max() > 1e-3
    assert (found.hidden[1, :, :6] - alone.hidden[1]).abs().max() > 1e-3  # from the next layer on they meet


def test_the_plain_form_begins_with_points() -> None:
    """Position first, content second; the first box has its centre at the point and its size from the head alone."""
    detector = small_detector(form="plain", classes=1)
    queries = detector.detect_queries()
    assert queries.position is not None
    torch.testing.assert_close(queries.position, detector.query_embed.weight[:, :16])
    torch.testing.assert_close(queries.content, detector.query_embed.weight[:, 16:])
    assert queries.reference.shape == (10, 2)
    with torch.no_grad():
        decoded = detector.decode(detector.encode(*batch_of(pictures((32, 48)))), queries)
        moved = detector.bbox_embed[0](decoded.hidden[0])
    moved[..., :2] += queries.reference
    torch.testing.assert_close(decoded.boxes[0], moved.sigmoid(), atol=1e-4, rtol=0)


def test_without_refinement_all_layers_start_at_the_first_point() -> None:
    detector = small_detector(form="plain", box_refinement=False)
    assert len(detector.bbox_embed) == len(detector.class_embed) == 1
    queries = detector.detect_queries()
    with torch.no_grad():
        decoded = detector.decode(detector.encode(*batch_of(pictures((32, 48)))), queries)
        for hidden, boxes in zip(decoded.hidden, decoded.boxes, strict=True):
            moved = detector.bbox_embed[0](hidden)
            moved[..., :2] += queries.reference
            torch.testing.assert_close(boxes, moved.sigmoid(), atol=1e-4, rtol=0)


def fresh_detector() -> DeformableDetr:
    pytest.importorskip("timm")
    torch.manual_seed(0)
    sizes = {"encoder_layers": 1, "decoder_layers": 2, "feedforward": 16, "hidden": 32, "levels": 2, "queries": 5}
    return DeformableDetr(DetectorSizes(backbone="ssdlite_mobilenet", **sizes))


def test_fresh_heads_score_a_hundredth_and_begin_at_their_anchors() -> None:
    fresh = fresh_detector().eval()
    with torch.no_grad():
        found = fresh(*batch_of(pictures((64, 64))))
    first = found["aux"][0]
    wanted = fresh.refpoint_embed.weight.sigmoid()
    torch.testing.assert_close(first["pred_boxes"][0, :, :2], wanted[:, :2], atol=1e-5, rtol=0)
    sizes = (fresh.refpoint_embed.weight[:, 2:] - 2).sigmoid()
    torch.testing.assert_close(first["pred_boxes"][0, :, 2:], sizes, atol=1e-5, rtol=0)
    assert 0.001 < float(found["pred_logits"].sigmoid().mean()) < 0.05


@pytest.mark.parametrize("queries", [1, 7, 16])
def test_fresh_anchors_on_a_grid_cover_the_picture_with_people(queries: int) -> None:
    pytest.importorskip("timm")
    sizes = DetectorSizes(backbone="ssdlite_mobilenet", hidden=16, heads=2, encoder_layers=1, decoder_layers=1,
                          feedforward=8, queries=queries, anchors="grid")  # fmt: skip
    detector = DeformableDetr(sizes)
    anchors = detector.refpoint_embed.weight.detach().sigmoid()
    assert len(torch.unique(anchors[:, :2], dim=0)) == queries
    for axis in range(2):
        assert torch.cdist(torch.linspace(0, 1, 5)[:, None], anchors[:, axis, None]).amin(1).max() <= (
            0.5 if queries < 4 else 0.25
        )
    torch.testing.assert_close(anchors[:, 2:], torch.tensor([[0.05, 0.15]]).expand(queries, 2))
    assert not detector.bbox_embed[0].layers[-1].bias.any(), "the first layer's boxes are the anchors"


def test_all_that_is_trained_has_a_gradient_and_norms_stay_frozen() -> None:
    torch.manual_seed(0)
    detector = DeformableDetr(
        DetectorSizes(backbone="ssdlite_mobilenet", hidden=32, levels=2, queries=5, feedforward=16)
    )
    detector.train()
    statistics = {name: each.clone() for name, each in detector.named_buffers()}
    with torch.no_grad():
        for parameter in detector.bbox_embed.parameters():
            parameter.add_(0.01)  # zero weights would stop gradients
    found = detector(*batch_of(pictures((64, 64))))
    loss = sum(each["pred_logits"].sum() + each["pred_boxes"].square().sum() for each in (found, *found["aux"]))
    loss.backward()
    trained = {name: each for name, each in detector.named_parameters() if each.requires_grad}
    assert [name for name, each in trained.items() if each.grad is None] == []
    for name, each in detector.named_buffers():
        torch.testing.assert_close(each, statistics[name])


def test_in_bfloat16_references_stay_exact() -> None:
    detector = small_detector()
    images, masks = batch_of(pictures((64, 80), (48, 64)))
    with torch.no_grad():
        exact = detector(images, masks)
        with torch.autocast("cpu", torch.bfloat16):
            rough = detector(images, masks)
    assert rough["pred_boxes"].dtype == rough["pred_logits"].dtype == torch.float32
    assert (rough["pred_boxes"] - exact["pred_boxes"]).abs().mean() < 0.05
    assert (rough["pred_boxes"] - exact["pred_boxes"]).abs().max() > 0


@pytest.mark.parametrize("form", ["dab", "plain"])
def test_nothing_waits_for_the_device(form: str) -> None:
    """Detection has no operator that a CUDA graph cannot hold."""
    detector, batch = small_detector(form=form), batch_of(pictures((32, 48), (20, 40)))
    watch = Watch()
    with torch.no_grad(), watch:
        detector(*batch)
    assert watch.seen == set()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["dab", "plain"])
def test_it_is_compiled_in_one_piece(form: str) -> None:
    detector, batch = small_detector(form=form), batch_of(pictures((32, 48), (20, 40)))
    compiled = torch.compile(detector, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(*batch)["pred_boxes"], detector(*batch)["pred_boxes"], atol=1e-5, rtol=0)


def test_positions_of_a_padded_map() -> None:
    """Of 2 x 3 cells of which 1 x 2 are no padding: y 0.5, x 0.25 and 0.75 of the valid part."""
    mask = torch.tensor([[[False, False, True], [True, True, True]]])
    embedded = map_embedding(mask, 8, 20.0)
    assert embedded.shape == (1, 2, 3, 8)
    slow = 2 * math.pi / 20**0.5
    expected = [math.sin(math.pi), math.cos(math.pi), math.sin(0.5 * slow), math.cos(0.5 * slow)]
    expected += [math.sin(math.pi / 2), math.cos(math.pi / 2), math.sin(0.25 * slow), math.cos(0.25 * slow)]
    np.testing.assert_allclose(embedded[0, 0, 0].numpy(), expected, atol=1e-5)
    assert valid_ratios([mask]).tolist() == [[[pytest.approx(2 / 3), 0.5]]]


def test_masks_of_maps_are_of_the_pixel_above_and_to_the_left() -> None:
    masks = torch.ones(1, 5, 7, dtype=torch.bool)
    masks[:, :3, :4] = False
    assert (~level_masks(masks, [(2, 3)])[0][0]).int().tolist() == [[1, 1, 0], [1, 1, 0]]


def test_the_inverse_sigmoid_is_clamped() -> None:
    values = torch.tensor([-0.5, 0.0, 1e-4, 0.5, 1.0, 2.0])
    found = inverse_sigmoid(values, 1e-3)
    low, high = math.log(1e-3), -math.log(1e-3)
    np.testing.assert_allclose(found.numpy(), [low, low, math.log(1e-3 / (1 - 1e-4)), 0, high, high], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"form": "two-stage"}, "two-stage detectors are not supported"),
        ({"conventions": "motr"}, "conventions must be coco or memotr"),
        ({"queries": 0}, "queries must be a whole number of at least 1, not 0"),
        ({"hidden": 36}, "hidden must be a multiple of heads"),
        ({"hidden": 30, "heads": 2}, "hidden must be a multiple of 4"),
        ({"separate_first_layers": 7}, "separate_first_layers must be in 0..decoder_layers"),
        ({"form": "plain", "separate_first_layers": 1}, "must be 0 in the plain form"),
        ({"box_refinement": False}, "box_refinement must be true in the dab form"),
    ],
)
def test_sizes_that_cannot_be(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DetectorSizes(**changes)


def test_pictures_that_do_not_fit_are_told() -> None:
    detector = small_detector()
    images, masks = batch_of(pictures((32, 48)))
    with pytest.raises(ValueError, match=r"images should be \(B, 3, H, W\) float"):
        detector(images[0], masks)
    with pytest.raises(ValueError, match=r"images should be .* found .* torch.uint8"):
        detector(images.byte(), masks)
    with pytest.raises(ValueError, match=r"masks should be \(1, 32, 48\) bool, True where padded"):
        detector(images, masks[:, :16])
    with pytest.raises(ValueError, match="masks should be"):
        detector(images, masks.float())
    with pytest.raises(ValueError, match="masks should be a tensor, found NoneType"):
        detector(images, None)
