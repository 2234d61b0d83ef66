"""The ONNX graph gives what the model gives: any number of boxes, anywhere, and pictures of any size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import trackmill.models.masa
from trackmill.models.masa.model import Masa
from trackmill.models.masa.variants import VARIANTS

pytest.importorskip("onnxruntime", reason='needs pip install -e ".[export]"')
pytest.importorskip("onnxscript", reason='needs pip install -e ".[export]"')

from trackmill.models.masa.onnx import INPUTS, OPSET, OnnxEmbedder, to_onnx
from trackmill.pipeline.export.onnx_check import TOLERANCE

pytestmark = pytest.mark.slow  # the command that writes the graph checks it, and is tested in tests/jobs

Run = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], np.ndarray]

TRIES = ((2, 100, 134, 9), (1, 97, 203, 0), (3, 64, 160, 1), (1, 17, 33, 4), (1, 224, 70, 30))
"""Pictures, height, width, boxes: none the graph was traced with, all smaller sizes than a stride among them."""


def small(head: str) -> Masa:
    """masa_lite0 with random weights and a head of either kind; offsets of the convolutions are not all zero."""
    variant = VARIANTS["masa_lite0_colour" if head == "colours" else "masa_lite0"]
    if head == "convs":
        variant = dataclasses.replace(variant, track_head="convs", embed_channels=64, channels=32, head_channels=64)
    return moved(trackmill.models.masa.load(variant, seed=1))


def moved(model: Masa) -> Masa:
    """Fresh weights sample without offsets: these sample elsewhere."""
    generator = torch.Generator().manual_seed(5)
    for name, values in model.named_parameters():
        if "spatial_conv_offset" in name:
            values.data.copy_(0.05 * torch.randn(values.shape, generator=generator))
    return model


def make_input(images: int, height: int, width: int, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures, boxes and their owners in no order: some boxes leave the picture, one is outside, one is empty."""
    generator = torch.Generator().manual_seed(height)
    pixels = torch.rand(images, 3, height, width, generator=generator) * 255
    boxes = torch.rand(count, 4, generator=generator) * torch.tensor([width, height, width, height]) - 10
    boxes[:, 2:] = boxes[:, :2] + boxes[:, 2:].abs()
    if count > 2:
        boxes[1] = torch.tensor([2.0 * width, 2.0 * height, 3.0 * width, 2.5 * height])
        boxes[2, 2:] = boxes[2, :2]
    return pixels, boxes, torch.randint(0, images, (count,), generator=generator)


def wanted(model: Masa, images: torch.Tensor, boxes: torch.Tensor, owners: torch.Tensor) -> np.ndarray:
    """The model's own embeddings, in the order of the boxes."""
    rows = torch.empty(len(boxes), model.variant.embed_channels)
    embeddings = model.embed(images, [boxes[owners == index] for index in range(len(images))])
    for index, each in enumerate(embeddings):
        rows[owners == index] = each
    return rows.numpy()


def session(graph: bytes) -> Run:
    """Runs a graph."""
    import onnxruntime

    opened = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def run(*tensors: torch.Tensor) -> np.ndarray:
        found: np.ndarray = opened.run(None, dict(zip(INPUTS, (each.numpy() for each in tensors), strict=True)))[0]
        return found

    return run


@pytest.fixture(scope="module")
def bands() -> tuple[Masa, Any]:
    """masa_lite0 as it is, and its graph."""
    model = small("bands")
    return model, to_onnx(model)


@pytest.mark.parametrize("head", ["bands", "colours", "convs"])
@torch.no_grad()
def test_what_is_exported_gives_what_the_model_gives(head: str) -> None:
    """Before ONNX: pooling, padding and the layers that were put in the place of others."""
    model = small(head)
    embedder = OnnxEmbedder(model)
    names = set(model.state_dict())
    for shape in TRIES:
        given = make_input(*shape)
        found, right = embedder(*given).numpy(), wanted(model, *given)
        assert found.shape == (shape[-1], model.variant.embed_channels)
        np.testing.assert_allclose(found, right, atol=2e-5 * max(1.0, np.abs(right).max(initial=0)))
    assert set(model.state_dict()) == names, "the model itself stays as it is"


def test_the_graph_takes_any_boxes_and_any_size(bands: tuple[Masa, Any]) -> None:
    model, proto = bands
    run = session(proto.SerializeToString())
    for shape in TRIES:
        given = make_input(*shape)
        found, right = run(*given), wanted(model, *given)
        assert found.shape == right.shape and found.dtype == np.float32
        np.testing.assert_allclose(found, right, atol=1e-4)


def test_each_embedding_is_of_its_box(bands: tuple[Masa, Any]) -> None:
    """The same boxes in another order, and of the other picture, give the same rows in that order, and other rows."""
    run = session(bands[1].SerializeToString())
    images, boxes, owners = make_input(2, 100, 134, 6)
    first = run(images, boxes, owners)
    order = torch.tensor([3, 0, 5, 4])
    np.testing.assert_allclose(run(images, boxes[order], owners[order]), first[order.numpy()], atol=1e-5)
    swapped = run(images, boxes, 1 - owners)
    assert np.abs(swapped - first)[[0, 3, 4, 5]].max(axis=1).min() > 1e-3


def test_the_graph_says_what_it_takes_and_nothing_of_this_machine(bands: tuple[Masa, Any]) -> None:
    model, proto = bands
    taken = {
        each.name: [one.dim_param or one.dim_value for one in each.type.tensor_type.shape.dim]
        for each in (*proto.graph.input, *proto.graph.output)
    }
    assert taken == {
        "images": ["batch", 3, "height", "width"],
        "boxes": ["num_boxes", 4],
        "box_images": ["num_boxes"],
        "embeddings": ["num_boxes", model.variant.embed_channels],
    }
    assert [each.version for each in proto.opset_import if not each.domain] == [OPSET]
    data = proto.SerializeToString()
    for trace in (b"site-packages", b".py", b"masa_adapter", b"rpn_head"):
        assert trace not in data
    kept = sum(values.numel() * 4 for part in (model.backbone, model.track_head) for values in part.parameters())
    assert len(data) < 1.1 * kept + 300_000, "only what is used is in the file"


def test_what_cannot_be_exported_is_said() -> None:
    with torch.device("meta"):  # shapes without numbers
        detic, sam, large = (Masa(VARIANTS[name]) for name in ("masa_detic", "masa_sam_vitb", "masa_sam_vith"))
    with pytest.raises(ValueError, match=r"masa_detic can be exported for one size .* give height and width"):
        to_onnx(detic)
    with pytest.raises(ValueError, match=r"1025 x 640 pixels .* do not fit masa_sam_vitb, which takes 1 to 1024"):
        to_onnx(sam, (1025, 640))
    with pytest.raises(ValueError, match=r"masa_sam_vith: .* do not fit into one ONNX file"):
        to_onnx(large)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"), [("convs", None), ("convs", (90, 130)), ("masa_r50", None), ("masa_detic", (64, 96))]
)
def test_graphs_with_deformable_convolution(name: str, size: tuple[int, int] | None) -> None:
    """Official variants too; the model itself still works afterwards, on pictures of the size that was exported."""
    model = small(name) if name == "convs" else moved(trackmill.models.masa.load(name, seed=1))
    run = session(to_onnx(model, size).SerializeToString())
    for shape in TRIES if size is None else ((2, *size, 5), (1, *size, 0)):
        given = make_input(*shape)
        found, right = run(*given), wanted(model, *given)
        np.testing.assert_allclose(found, right, atol=TOLERANCE * max(1.0, np.abs(right).max(initial=0)))
