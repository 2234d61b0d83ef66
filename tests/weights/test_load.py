"""Loading: wrappers and prefixes off, every odd tensor named, other variants recognised, nothing in a file ever run."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

import trackmill.models.masa
from tests.shared_data import DATA, needs_data
from trackmill.models.backbones.lite0 import imagenet_lite0
from trackmill.models.masa.model import Masa
from trackmill.models.masa.variants import VARIANTS, metadata_of, recognise
from trackmill.models.weights.read import as_checkpoint, read_checkpoint
from trackmill.pipeline.weights import build_model, read_weights

State = dict[str, Tensor]

SIZES = [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]
"""Of Detic's five levels, strides 8 to 128, for 64 x 96 pixels."""

SWIN_INDEX = "detector.backbone.stages.0.blocks.1.attn.w_msa.relative_position_index"


@pytest.fixture(scope="module")
def state() -> State:
    """Weights of a small model that are not those a fresh one gets."""
    return trackmill.models.masa.load("masa_lite0", seed=7).state_dict()


def assert_loaded(model: torch.nn.Module, state: State) -> None:
    """The model holds exactly these tensors."""
    found = model.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], values) for name, values in state.items())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "meta": {"epoch": 12}},
        lambda state: {"model": state, "optimizer": {"state": {}}},
        # DataParallel and torch.compile, one around the other.
        lambda state: {f"module._orig_mod.{name}": values for name, values in state.items()},
        # mmengine keeps the averaged weights under `state_dict` and the others beside.
        lambda state: {"state_dict": state, "ema_state_dict": {"module.other": torch.zeros(1)}},
        # An average alone, with the counter that torch's AveragedModel adds.
        lambda state: {
            "ema_state_dict": {"n_averaged": torch.tensor(5)} | {f"module.{n}": v for n, v in state.items()}
        },
        lambda state: OrderedDict(state),
    ],
    ids=["bare", "state_dict", "model", "prefixes", "ema beside", "ema alone", "ordered"],
)
def test_wrappers_come_off(state: State, wrap: Callable[[State], Any], tmp_path: Path) -> None:
    torch.save(wrap(state), tmp_path / "mine.pth")
    assert_loaded(trackmill.models.masa.load("masa_lite0", tmp_path / "mine.pth"), state)
    assert_loaded(trackmill.models.masa.load("masa_lite0", wrap(state)), state)


def test_a_url_is_fetched_by_the_pipeline_for_a_model_too(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKMILL_CACHE", str(tmp_path / "cache"))
    url = f"memory://masa-{os.urandom(4).hex()}/lite0.safetensors"
    save_file(state, tmp_path / "one.safetensors")
    fsspec.filesystem("memory").pipe_file(url, (tmp_path / "one.safetensors").read_bytes())
    assert_loaded(trackmill.models.masa.load("masa_lite0", url), state)
    assert_loaded(trackmill.models.masa.load("masa_lite0", f"file://{tmp_path / 'one.safetensors'}"), state)
    assert_loaded(trackmill.models.masa.load("masa_lite0", read_weights(url)), state)
    # The one fetches, the other reads files of this machine alone.
    for load, user in itertools.product((as_checkpoint, read_checkpoint), ("", "user:hush@")):
        with pytest.raises((FileNotFoundError, ValueError), match=r"check the URL|read_weights|credentials") as told:
            load(f"memory://{user}nowhere/a.pth?signature=sesame")
        said = str(told.value)
        assert "memory://nowhere/a.pth" in said and "sesame" not in said and "hush" not in said
    assert_loaded(build_model("masa_lite0", url), state)


def test_safetensors_say_how_they_were_trained(state: State, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_file(state, path, metadata_of(replace(VARIANTS["masa_lite0"], compatible_offsets=True)))
    assert trackmill.models.masa.load("masa_lite0", path).variant.compatible_offsets
    assert not trackmill.models.masa.load("masa_lite0", path, compatible_offsets=False).variant.compatible_offsets
    assert not trackmill.models.masa.load("masa_lite0").variant.compatible_offsets
    assert trackmill.models.masa.load("masa_r50").variant.compatible_offsets


def test_metadata_of_another_variant_or_of_others_is_told(state: State, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    few = {HEAD: state[HEAD]}
    save_file(few, path, metadata_of(VARIANTS["masa_r50"]))
    with pytest.raises(ValueError, match="look like masa_r50, not masa_lite0"):
        trackmill.models.masa.load("masa_lite0", path)
    for other in ("[1]", "[" * 200_000, "{", "9" * 5000):
        save_file(few, path, {"trackmill": other})
        with pytest.raises(ValueError, match="is not what trackmill writes"):
            trackmill.models.masa.load("masa_lite0", path)
    save_file(state, path, {"format": "pt"})
    assert_loaded(trackmill.models.masa.load("masa_lite0", path), state)


HEAD = "roi_head.bbox_head.fc_cls.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop(HEAD), f"1 missing: {HEAD}"),
        (lambda state: state.update(extra=torch.zeros(1)), "1 unexpected: extra"),
        (lambda state: state.update({HEAD: torch.zeros(3, 4)}), rf"1 of another shape: {HEAD} \(3, 4\) instead of"),
        (lambda state: state.update({HEAD: state[HEAD].long()}), f"1 of another kind: {HEAD} torch.int64 instead of"),
        # Several faults are told together.
        (lambda state: state.update(extra=state.pop(HEAD)), f"1 missing: {HEAD}; 1 unexpected: extra"),
        # A detector's entries are known in variants that have a detector, not here.
        (lambda state: state.update({"detector.neck.x": torch.zeros(1)}), "1 unexpected: detector.neck.x"),
    ],
    ids=["missing", "unexpected", "shape", "kind", "two faults", "detector"],
)
def test_every_difference_is_named(state: State, change: Callable[[State], Any], said: str) -> None:
    changed = dict(state)
    change(changed)
    with pytest.raises(ValueError, match=said):
        trackmill.models.masa.load("masa_lite0", changed)


def test_counters_may_be_absent(state: State) -> None:
    without = {name: values for name, values in state.items() if not name.endswith("num_batches_tracked")}
    assert len(without) < len(state)
    found = trackmill.models.masa.load("masa_lite0", without).state_dict()
    assert all(torch.equal(found[name], values) for name, values in without.items())


def test_half_precision_weights_become_single(state: State) -> None:
    half = {name: values.half() if values.is_floating_point() else values for name, values in state.items()}
    found = trackmill.models.masa.load("masa_lite0", half).state_dict()
    assert found[HEAD].dtype == torch.float32
    assert torch.equal(found[HEAD], half[HEAD].float())


def test_the_given_tensors_are_copied(state: State) -> None:
    kept = {name: values.clone() for name, values in state.items()}
    model = trackmill.models.masa.load("masa_lite0", kept)
    with torch.no_grad():
        model.roi_head.bbox_head.fc_cls.weight.add_(1)
    assert torch.equal(kept[HEAD], state[HEAD])


@pytest.mark.parametrize("name", VARIANTS)
def test_a_checkpoint_of_another_variant_is_recognised(name: str) -> None:
    key, shape = VARIANTS[name].fingerprint
    other = {key: torch.zeros(shape)}
    assert recognise(other) == name
    asked = "masa_r50" if name != "masa_r50" else "masa_lite0"
    with pytest.raises(ValueError, match=f"look like {name}, not {asked}"):
        trackmill.models.masa.load(asked, other)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variants_fingerprint_is_in_its_state_dict(name: str) -> None:
    with torch.device("meta"):  # names and shapes only, since ViT-H alone has 2.5 GB
        state = Masa(VARIANTS[name]).state_dict()
    assert recognise(state) == name
    assert any(key.startswith(VARIANTS[name].backbone_prefix) for key in state)
    assert not any(key.startswith(VARIANTS[name].aside) for key in state)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("image_encoder.pos_embed", "plain SAM"),
        ("backbone.bottom_up.patch_embed.proj.weight", r"plain Detic .*; it finds objects as --detections detic:FILE"),
        ("backbone.bottom_up.base.conv1.weight", "plain Detic"),
        ("roi_head.bbox_head.0.fc_cls.linear.weight", "plain Detic"),
    ],
)
def test_checkpoints_of_the_detectors_alone_are_recognised(key: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        trackmill.models.masa.load("masa_detic", {key: torch.zeros(1)})


def test_a_detic_of_mmdetection_on_resnet_is_no_masa_r50() -> None:
    """The names of its backbone are those of MASA's."""
    key, shape = VARIANTS["masa_r50"].fingerprint
    state = {key: torch.zeros(shape), "roi_head.bbox_head.0.fc_cls.linear.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match="look like a plain Detic checkpoint, not masa_r50"):
        trackmill.models.masa.load("masa_r50", state)


def test_detic_weights_load_with_the_detector_around_them() -> None:
    fresh = trackmill.models.masa.load("masa_detic", seed=1).state_dict()
    state = fresh | {"detector.roi_head.bbox_head.0.fc_cls.zs_weight": torch.zeros(2)}
    assert SWIN_INDEX in state
    del state[SWIN_INDEX]
    model = trackmill.models.masa.load("masa_detic", state)
    assert_loaded(model, fresh)
    with torch.no_grad():
        levels = model.features(torch.zeros(1, 3, 60, 96))
    assert [tuple(level.shape[1:]) for level in levels] == [(256, *size) for size in SIZES]

    with pytest.raises(ValueError, match=r"1 unexpected: detector\.text\.weight"):
        trackmill.models.masa.load("masa_detic", state | {"detector.text.weight": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"numbered in another order: .*relative_position_index"):
        trackmill.models.masa.load("masa_detic", state | {SWIN_INDEX: fresh[SWIN_INDEX].T.contiguous()})


def test_no_two_variants_share_a_state_dict_by_accident() -> None:
    """Detic's and Grounding DINO's backbones differ only in the window."""
    detic, gdino = VARIANTS["masa_detic"].fingerprint, VARIANTS["masa_gdino"].fingerprint
    assert detic[0] == gdino[0] and detic[1] != gdino[1]


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("import builtins; builtins.trap_was_sprung = True",)


@pytest.mark.parametrize("content", [{"state_dict": {"a": Trap()}}, Trap(), {"a": Path("x")}])
def test_a_file_that_holds_more_than_tensors_is_refused_and_not_run(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="more than tensors") as raised:
        trackmill.models.masa.load("masa_lite0", tmp_path / "evil.pth")
    assert "weights_only=False" not in str(raised.value) and "\n" not in str(raised.value)
    import builtins

    assert not hasattr(builtins, "trap_was_sprung")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "torch before 1.6"])
def test_what_the_detr_family_stores_beside_the_tensors_is_read_as_nothing(zipped: bool, tmp_path: Path) -> None:
    """Its published files hold the arguments of the training, as argparse gave them."""
    arguments = argparse.Namespace(lr=2e-4, backbone="resnet50", nested=argparse.Namespace(masks=False), dims=[1, 2])
    stored = {"model": {"a.weight": torch.ones(2)}, "lr_scheduler": {"step": 1}, "epoch": 49, "args": arguments}
    path = tmp_path / "checkpoint.pth"
    torch.save(stored, path, _use_new_zipfile_serialization=zipped)
    assert read_checkpoint(path)["a.weight"].tolist() == [1, 1]


def test_what_mmengine_stores_beside_the_tensors_is_read_as_nothing(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "mmengine.logging.history_buffer"
    module = types.ModuleType(name)
    exec(  # a class that pickles under mmengine's name and is gone when the file is read
        "class HistoryBuffer:\n"
        "    def __init__(self, log):\n"
        "        self._log_history, self._statistics_methods = log, {'mean': HistoryBuffer.mean}\n"
        "    def mean(self): ...\n",
        module.__dict__ | {"__name__": name},
        module.__dict__,
    )
    exec("HistoryBuffer.mean.__qualname__ = 'HistoryBuffer.mean'", module.__dict__)
    module.HistoryBuffer.__module__ = module.HistoryBuffer.mean.__module__ = name
    module.__dict__["HistoryBuffer"].__init__.__globals__["HistoryBuffer"] = module.HistoryBuffer
    for part in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    monkeypatch.setitem(sys.modules, name, module)
    log = {"train/loss": module.HistoryBuffer(np.arange(3.0)), "lr": np.float64(0.1)}
    torch.save({"state_dict": state, "message_hub": {"log_scalars": log}}, tmp_path / "epoch_12.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "epoch_12.pth", weights_only=True)
    for part in ("mmengine", "mmengine.logging", name):
        monkeypatch.delitem(sys.modules, part)

    assert_loaded(trackmill.models.masa.load("masa_lite0", tmp_path / "epoch_12.pth"), state)


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_a_truncated_file_is_told(state: State, kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"mine.{kind}"
    torch.save(state, path) if kind == "pth" else save_file(state, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=f"mine.{kind}: not"):
        trackmill.models.masa.load("masa_lite0", path)


def test_digits_in_a_name_are_held_to(state: State, tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    torch.save(state, path)
    digits = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    good = path.rename(tmp_path / f"mine-{digits}.pth")
    assert_loaded(trackmill.models.masa.load("masa_lite0", good), state)
    bad = good.rename(tmp_path / "mine-0123abcd.pth")
    with pytest.raises(ValueError, match="its name promises 0123abcd"):
        read_checkpoint(bad)


def test_wrong_arguments_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'masa_r50'"):
        trackmill.models.masa.load("masa-r50")
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        trackmill.models.masa.load("masa_lite0", tmp_path / "none.pth")
    with pytest.raises(ValueError, match="is for masa_lite0"):
        trackmill.models.masa.load("masa_r50", "imagenet")
    with pytest.raises(ValueError, match=r"tensors by name \(a state dict\) were expected"):
        trackmill.models.masa.load("masa_lite0", {})
    with pytest.raises(ValueError, match="1 entries are no tensors: a"):
        trackmill.models.masa.load("masa_lite0", {"a": 3})


def test_fresh_weights_follow_from_the_seed() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (trackmill.models.masa.load("masa_lite0", seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one[HEAD], other[HEAD])


def test_a_variant_of_ones_own_is_taken() -> None:
    small = replace(VARIANTS["masa_lite0"], pad_divisor=64, track_head="convs", embed_channels=32)
    model = trackmill.models.masa.load(small)
    assert model.prepare(torch.zeros(1, 3, 10, 70)).shape == (1, 3, 64, 128)
    (embeddings,) = model.embed(torch.zeros(1, 3, 10, 70), [torch.tensor([[0.0, 0.0, 9.0, 9.0]])])
    assert embeddings.shape == (1, 32)


def test_imagenet_weights_are_all_there_in_timms_order() -> None:
    pretrained = imagenet_lite0()
    network = timm.create_model("tf_efficientnet_lite0")
    assert list(pretrained) == list(network.state_dict())
    backbone = trackmill.models.masa.load("masa_lite0", "imagenet").backbone.state_dict()
    assert backbone and all(torch.equal(values, pretrained[name]) for name, values in backbone.items())


@needs_data("images/truck.jpg")
def test_imagenet_weights_see_a_pickup() -> None:
    image = Image.open(DATA / "images" / "truck.jpg").convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = np.array(image.crop((left, top, left + 224, top + 224)), np.float32)
    variant = VARIANTS["masa_lite0"]
    batch = (torch.from_numpy(pixels).permute(2, 0, 1)[None] - variant.mean[0]) / variant.std[0]
    network = timm.create_model("tf_efficientnet_lite0").eval()
    network.load_state_dict(imagenet_lite0())
    with torch.no_grad():
        chance, best = network(batch).softmax(1)[0].max(0)
    assert int(best) == 717  # pickup, pickup truck
    assert float(chance) == pytest.approx(0.47, abs=0.01)
