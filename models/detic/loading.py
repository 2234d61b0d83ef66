"""From a checkpoint to a detector: whose it is, which of its entries are left out, and everything else must fit."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from trackmill.models.detic.lvis_names import LVIS_NAMES
from trackmill.models.detic.mmdet_names import has_mmdet_names, to_official
from trackmill.models.detic.model import Detic
from trackmill.models.detic.network import DeticNetwork
from trackmill.models.detic.recognising import recognise_backbone, recognise_other, recognise_variant
from trackmill.models.detic.settings import EMBEDDING, VARIANTS
from trackmill.models.detic.vocabulary import Vocabulary, as_vocabulary, unnamed
from trackmill.models.device import choose_device
from trackmill.models.weights.checkpoint import Checkpoint
from trackmill.models.weights.errors import BadWeights
from trackmill.models.weights.fit import COMPUTED, fit
from trackmill.models.weights.read import as_checkpoint
from trackmill.schemas.errors import InputError
from trackmill.schemas.names import nearest

CLASSIFIERS = tuple(f"roi_heads.box_predictor.{stage}.cls_score.zs_weight" for stage in range(3))
"""Matrices (D, C + 1) of the classes: of any width, and not needed where a vocabulary is given."""

UNUSED = re.compile(
    r"roi_heads\.box_predictor\.[012]\.freq_weight"  # of the federated loss, in models trained on LVIS's names
    r"|backbone\.bottom_up\.base\.fc\.(weight|bias)"  # ImageNet's classifier
    r"|text_encoder\..+"  # CLIP's text tower, in the models of captions
)
"""Entries of official checkpoints that no detection depends on, whatever their shape."""


def load_model(
    weights: str | os.PathLike[str] | Mapping[str, Tensor],
    vocabulary: Any = None,
    variant: str | None = None,
    device: str | torch.device = "cpu",
    *,
    masks: bool = False,
    text_weights: str | os.PathLike[str] | None = None,
    dtype: str = "float32",
    compile: bool = False,
) -> Detic:
    """See `trackmill.models.detic.load`."""
    place = choose_device(str(device))
    if not isinstance(weights, str | os.PathLike | Mapping):
        raise InputError(f"weights: should be a path, a URL or tensors by name, found {type(weights).__name__}")
    if variant is not None and variant not in VARIANTS:
        advice = nearest(str(variant), VARIANTS) or f"known: {', '.join(VARIANTS)}"
        raise InputError(f"no variant of Detic is called {variant!r}; {advice}")
    # The checkpoint first: names of classes may mean that CLIP is fetched, in vain where the path is misspelt.
    checkpoint = official_tensors(as_checkpoint(weights))
    architecture = VARIANTS[checked_variant(checkpoint, variant)]
    classes = None if vocabulary is None else as_vocabulary(vocabulary, text_weights)
    if classes is not None:
        classes.check_width(architecture.embedding, "Detic")
    num_classes = num_stored_classes(checkpoint) if classes is None else 1
    # Detic's own constants for MASA's copy too: it was trained with them, and mmdet's are rounded.
    with torch.random.fork_rng(devices=[]):  # fresh weights are drawn, and replaced at once
        network = DeticNetwork(architecture, num_classes)
    fit_network(network, checkpoint, own_classes=classes is None)
    names = stored_names(network.num_classes)
    detector = Detic(network.to(place), names, masks=masks, dtype=dtype, compile=compile)
    if classes is not None:
        detector.set_vocabulary(classes)
    return detector


def official_tensors(checkpoint: Checkpoint) -> Checkpoint:
    """The same with official names: those of MASA's copy are mmdet's."""
    if not has_mmdet_names(checkpoint.tensors):
        return checkpoint
    return replace(checkpoint, tensors=to_official(checkpoint.tensors))


def checked_variant(checkpoint: Checkpoint, variant: str | None = None) -> str:
    """Whose tensors these are, before anything large is built.

    Raises:
        BadWeights: of another architecture, or of another variant than `variant`; says of which.
    """
    found = recognise_variant(checkpoint.tensors)
    if found is None and variant is not None and recognise_backbone(checkpoint.tensors) == variant:
        return variant  # without its heads: all of them are named
    if found is None:
        other = recognise_other(checkpoint.tensors)
        wanted = "Detic's CenterNet2 models on Swin-B or ResNet-50 are known (..._CLIP_SwinB_..., ..._CLIP_R5021k_...)"
        if other is not None:
            raise BadWeights(f"{checkpoint.where}: these weights are of {other}; only {wanted}")
        if variant is None:
            names = ", ".join(list(checkpoint.tensors)[:3])
            raise BadWeights(
                f"{checkpoint.where}: no Detic recognised in {len(checkpoint):,} tensors ({names}, ...); {wanted}"
            )
        return variant  # which then says what is missing
    if variant is not None and variant != found:
        raise BadWeights(f"{checkpoint.where}: these weights are of variant {found}, not {variant}")
    return found


def fit_network(network: DeticNetwork, checkpoint: Checkpoint, *, own_classes: bool = False) -> None:
    """Copy the tensors of a checkpoint into `network`, on the CPU; on an error it is as before.

    May be absent: `relative_position_index`, `num_batches_tracked`, what `UNUSED` names and, unless `own_classes`, the
    classifiers. Whatever else is missing or not known is an error.

    Args:
        network: with as many classes as the checkpoint, if `own_classes`.
        checkpoint: with official names.
        own_classes: whether the checkpoint's own classes are wanted.

    Raises:
        BadWeights: it does not fit; names the tensors.
    """
    expected = network.state_dict()

    def is_left_out(name: str) -> bool:
        # Counters of batch norms; not of things that are none.
        norm = name.removesuffix("num_batches_tracked")
        counter = norm != name and f"{norm}running_mean" in expected
        return counter or bool(UNUSED.fullmatch(name)) or (name in CLASSIFIERS and not own_classes)

    tensors = {name: each for name, each in checkpoint.tensors.items() if not is_left_out(name)}
    absent = COMPUTED if own_classes else (*COMPUTED, *CLASSIFIERS)
    what = f"Detic {network.architecture.name}"
    fit(network, replace(checkpoint, tensors=tensors), what, may_be_absent=absent)


def stored_names(num_classes: int) -> tuple[str, ...]:
    """Names of a checkpoint's own classes, which it does not hold: LVIS's where there are 1203, else `class 0`, ..."""
    return LVIS_NAMES if num_classes == len(LVIS_NAMES) else unnamed(num_classes)


def stored_vocabulary(checkpoint: Checkpoint) -> Vocabulary:
    """The classes that a checkpoint was trained with: vectors of length 1.

    Raises:
        BadWeights: it holds none, or they have another shape.
    """
    num_classes = num_stored_classes(checkpoint)
    vectors = checkpoint[next(name for name in CLASSIFIERS if name in checkpoint)][:, :num_classes].t().float()
    return Vocabulary(vectors.numpy(), stored_names(num_classes), checkpoint.where)


def num_stored_classes(checkpoint: Checkpoint) -> int:
    """C, of a checkpoint with official names.

    Raises:
        BadWeights: it holds no classes, or they have another shape.
    """
    shapes = {tuple(checkpoint[name].shape) for name in CLASSIFIERS if name in checkpoint}
    if not shapes:
        raise BadWeights(
            f"{checkpoint.where}: holds no classes (roi_heads.box_predictor.*.cls_score.zs_weight): give a vocabulary "
            "(--classes)"
        )
    shape = next(iter(shapes))
    if len(shapes) > 1 or len(shape) != 2 or shape[0] != EMBEDDING or shape[1] < 2:
        raise BadWeights(
            f"{checkpoint.where}: its zs_weight should be ({EMBEDDING}, classes + 1) in all three stages, found "
            f"{', '.join(map(str, sorted(shapes)))}; give a vocabulary, and they are not needed"
        )
    return int(shape[1]) - 1
