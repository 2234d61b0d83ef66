"""Loading: every variant by name, what does not fit is named, and nothing in a file is run."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import fsspec
import pytest

torch = pytest.importorskip("torch")
segment_anything = pytest.importorskip("segment_anything")
safetensors = pytest.importorskip("safetensors.torch")

from tests.proposers.scenes import tiny_sam  # noqa: E402
from trackmill.models.sam import loading  # noqa: E402
from trackmill.models.sam.loading import VARIANTS, load  # noqa: E402
from trackmill.models.sam.tiny_vit import TinyVit  # noqa: E402
from trackmill.schemas.published import PUBLISHED_MD5, check_md5, promised_md5  # noqa: E402

WIDE = "image_encoder.pos_embed"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Tensors of a tiny SAM, whose width counts as that of vit_b, and which `load` builds for it."""
    monkeypatch.setitem(segment_anything.sam_model_registry, "vit_b", lambda checkpoint: tiny_sam(seed=1))
    monkeypatch.setitem(loading._WIDTHS, "vit_b", 32)
    # Fresh position embeddings are zeros and fresh norms ones, in every model alike.
    return {key: values + torch.randn_like(values) for key, values in tiny_sam(seed=0).state_dict().items()}


def write(path: Path, content: Any) -> Path:
    if path.suffix == ".safetensors":
        safetensors.save_file(content, path)
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("name", "wrapper"),
    [
        ("mine.pth", ""),
        ("mine.pt", "model"),
        ("mine.pth", "state_dict"),
        ("mine.safetensors", ""),
        ("mobile_sam.pt", ""),  # promises no sum
    ],
)
def test_a_file_and_its_tensors_give_the_same_model(
    tmp_path: Path, tiny: dict[str, Any], name: str, wrapper: str
) -> None:
    path = write(tmp_path / name, {wrapper: tiny, "epoch": 3} if wrapper else tiny)
    for weights in (path, str(path), tiny):
        sam = load("vit_b", weights)
        assert type(sam).__name__ == "Sam" and not sam.training
        found = sam.state_dict()
        assert found.keys() == tiny.keys() and all(torch.equal(found[key], tiny[key]) for key in tiny)
    fresh = load("vit_b", None).state_dict()
    assert not any(torch.equal(fresh[key], tiny[key]) for key in tiny)


def test_the_loaded_model_owns_its_tensors(tmp_path: Path, tiny: dict[str, Any]) -> None:
    sam = load("vit_b", tiny)
    tiny[WIDE].fill_(7)
    assert not (sam.state_dict()[WIDE] == 7).any()


def test_halves_are_loaded_as_floats(tiny: dict[str, Any]) -> None:
    sam = load("vit_b", {key: values.half() for key, values in tiny.items()})
    assert {values.dtype for values in sam.state_dict().values()} == {torch.float32}


def test_what_does_not_fit_is_named(tmp_path: Path, tiny: dict[str, Any]) -> None:
    del tiny["mask_decoder.iou_token.weight"]
    tiny["teacher.weight"] = torch.zeros(1)
    tiny["mask_decoder.mask_tokens.weight"] = torch.zeros(4, 31)
    path = write(tmp_path / "odd.pth", tiny)
    with pytest.raises(ValueError, match=r"odd\.pth: does not fit SAM vit_b: 1 missing") as raised:
        load("vit_b", path)
    text = str(raised.value)
    assert "1 missing: mask_decoder.iou_token.weight;" in text
    assert "1 unexpected: teacher.weight;" in text
    assert "1 of another shape: mask_decoder.mask_tokens.weight (4, 31) instead of (4, 32)" in text


@pytest.mark.parametrize(
    ("variant", "key", "shape", "message"),
    [
        ("vit_l", WIDE, (1, 64, 64, 768), r'is not vit_l: .* \(1, 64, 64, 1024\); set sam\.variant = "vit_b"'),
        ("mobile", WIDE, (1, 64, 64, 1280), r'is not mobile: .* mobile has none; set sam\.variant = "vit_h"'),
        ("vit_h", WIDE, (1, 64, 64, 999), "no SAM checkpoint of a known variant"),
        ("vit_h", "image_encoder.patch_embed.seq.0.c.weight", (32, 3, 3, 3), r'MobileSAM .* = "mobile"'),
    ],
)
def test_a_checkpoint_of_another_variant_is_named_before_anything_is_built(
    monkeypatch: pytest.MonkeyPatch, variant: str, key: str, shape: tuple[int, ...], message: str
) -> None:
    monkeypatch.setattr(loading, "_build", None)  # building would fail
    with pytest.raises(ValueError, match=message):
        load(variant, {key: torch.zeros(shape)})


@pytest.mark.parametrize(
    ("variant", "hint"),
    [("vit_bb", "did you mean 'vit_b'"), ("sam2.1_hiera_huge", "did you mean 'sam2.1"), ("x", "known: vit_b, vit_l")],
)
def test_unknown_variants_get_a_hint(variant: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        load(variant, None)


@pytest.mark.parametrize("variant", VARIANTS)
def test_absent_files_and_remote_folders_are_refused(tmp_path: Path, variant: str) -> None:
    is_folder = variant.startswith(("sam2", "sam3"))
    with pytest.raises(ValueError if is_folder else FileNotFoundError, match=r"copy the folder|check the URL") as told:
        load(variant, "memory://absent/sam.pth?signature=secret")
    said = str(told.value)
    assert "secret" not in said and "memory://absent/sam.pth" in said
    with pytest.raises(FileNotFoundError, match="gone"):
        load(variant, tmp_path / "gone")


def test_a_url_is_fetched(tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKMILL_CACHE", str(tmp_path / "cache"))
    url = f"memory://sam-{tmp_path.name}/sam.pth"
    fsspec.filesystem("memory").pipe_file(url, write(tmp_path / "sam.pth", {"model": tiny}).read_bytes())
    loaded = load("vit_b", url).state_dict()
    assert all(torch.equal(loaded[name], each) for name, each in tiny.items())


@pytest.mark.parametrize("name", [*PUBLISHED_MD5, "sam_vit_b_ffffff.pth"])
def test_an_official_name_is_held_to_its_sum(tmp_path: Path, tiny: dict[str, Any], name: str) -> None:
    path = write(tmp_path / name, tiny)
    with pytest.raises(ValueError, match=rf"{name}: its MD5 is .* but {name} has .*damaged or was renamed"):
        load("vit_b", path)


def test_a_name_with_the_right_digits_is_loaded(tmp_path: Path, tiny: dict[str, Any]) -> None:
    data = write(tmp_path / "mine.pth", tiny).read_bytes()
    path = tmp_path / f"sam_vit_b_{hashlib.md5(data).hexdigest()[:6]}.pth"
    path.write_bytes(data)
    assert not load("vit_b", path).training


def test_published_sums_begin_as_their_names_say() -> None:
    for name, md5 in PUBLISHED_MD5.items():
        assert len(md5) == 32 and name.removesuffix(".pth").endswith(f"_{md5[:6]}")
        assert promised_md5(name) == md5
        check_md5(name, md5, name)
        with pytest.raises(ValueError, match=md5):  # the first six digits alone are not enough where all are known
            check_md5(name, md5[:6] + 26 * "0", name)
    assert promised_md5("sam_vit_b_abcdef.pth") == "abcdef"
    assert promised_md5("mobile_sam.pt") == promised_md5("my_sam_vit_b_abcdef.pth") == ""
    check_md5("mobile_sam.pt", 32 * "0", "mobile_sam.pt")


class Trap:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_code_in_a_file_never_runs(tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    sprung = tmp_path / "sprung"
    path = write(tmp_path / "trap.pth", {"model": tiny, "extra": Trap(sprung)})
    with pytest.raises(ValueError, match=r"trap\.pth: .*more than tensors"):
        load("vit_b", path)
    assert not sprung.exists()
    torch.load(path, weights_only=False)
    assert sprung.exists()  # the trap itself works


@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors"])
def test_damaged_files_are_named(tmp_path: Path, tiny: dict[str, Any], name: str) -> None:
    path = write(tmp_path / name, tiny)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        load("vit_b", path)


@pytest.mark.parametrize("variant", ["mobile", "vit_t"])
def test_mobile_sam_is_sam_with_another_encoder(tmp_path: Path, variant: str) -> None:
    fresh = load("mobile", None)
    assert isinstance(fresh.image_encoder, TinyVit) and fresh.image_encoder.img_size == 1024
    tensors = fresh.state_dict()
    # 10.14 million numbers; the published file has 40 728 226 bytes, 4 a number and its index.
    assert sum(values.numel() for values in tensors.values()) == 10_140_231
    sam = load(variant, write(tmp_path / "mobile_sam.pt", tensors))
    assert all(torch.equal(values, tensors[key]) for key, values in sam.state_dict().items())
    assert 0 < 40_728_226 - (tmp_path / "mobile_sam.pt").stat().st_size < 10_000


def test_segment_anythings_own_tools_take_mobile_sam(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompt encoder, mask decoder and sizes are those of vit_b, so its decoder's tensors fit."""

    def shapes(model: Any) -> dict[str, tuple[int, ...]]:
        tensors = model.state_dict().items()
        return {key: tuple(values.shape) for key, values in tensors if not key.startswith("image_encoder.")}

    with torch.device("meta"):
        reference = segment_anything.sam_model_registry["vit_b"](checkpoint=None)
    sam = load("mobile", None)
    assert shapes(sam) == shapes(reference)

    predictor = segment_anything.SamPredictor(sam)
    # The encoder has its own tests; its embedding's shape is what the others depend on.
    monkeypatch.setattr(sam.image_encoder, "forward", lambda images: torch.randn(len(images), 256, 64, 64))
    import numpy as np

    predictor.set_image(np.zeros((60, 80, 3), np.uint8))
    masks, iou, _ = predictor.predict(point_coords=np.array([[10.0, 20.0]]), point_labels=np.array([1]))
    assert masks.shape == (3, 60, 80) and iou.shape == (3,)


@pytest.mark.slow
def test_a_whole_vit(tmp_path: Path) -> None:
    tensors = load("vit_b", None).state_dict()
    sam = load("vit_b", write(tmp_path / "mine.safetensors", tensors))
    assert all(torch.equal(values, tensors[key]) for key, values in sam.state_dict().items())
