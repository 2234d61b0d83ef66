"""Detectors of transformers that are told what to find: Grounding DINO and OWL-ViT, with their successors.

Grounding DINO reads one sentence, each class in lower case and ended by a dot (its documentation: "a cat. a dog."), and
scores boxes by the sentence's tokens. A box gets the class to which its best token belongs. OWL-ViT compares each box
with each class. Classes that do not fit into one sentence are looked for in several passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trackmill.models.detectors.base import Detector, check_images
from trackmill.models.detectors.hf_folder import load_network, model_type, require_type
from trackmill.models.detectors.hf_running import HfSettings, as_picture, detections, run_in_groups
from trackmill.schemas.detections import Detections
from trackmill.schemas.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

GROUNDED_SCORE = 0.25
"""Least score of Grounding DINO, as in `post_process_grounded_object_detection`."""

OWL_SCORE = 0.1
"""Least score of OWL-ViT, as in `post_process_grounded_object_detection`."""

_GROUNDED = ("grounding-dino", "mm-grounding-dino")
_OWL = ("owlvit", "owlv2")
_OWL_QUERIES = 256
"""Classes of one pass of OWL-ViT, which compares with any number: this bounds the memory."""

_MAX_TOKENS = 256
"""Of a sentence of Grounding DINO, if its configuration does not say."""


class PromptedDetector(Detector):
    """Finds the classes that it is told.

    Args:
        network: Grounding DINO, OWL-ViT or a successor.
        processor: its own, with a tokenizer.
        options: `classes` are its vocabulary; `min_score`: 0.25 if left out, OWL-ViT 0.1.
        device: where it is put.

    Raises:
        InputError: no classes, or one that comes to no token.
    """

    applies = frozenset({"min_score", "classes"})

    def __init__(self, network: Any, processor: Any, options: HfSettings, device: torch.device | str = "cpu") -> None:
        if not options.classes:
            raise InputError(f"hf:{options.model}: it finds what it is told: name the classes (--classes person,dog)")
        self.names = options.classes
        # As of LVIS and COCO: the first class of a list has the id 1.
        self.category_ids = tuple(range(1, len(self.names) + 1))
        self._network, self._processor, self._where = network.to(device), processor, f"hf:{options.model}"
        self._grounded = network.config.model_type in _GROUNDED
        own = GROUNDED_SCORE if self._grounded else OWL_SCORE
        self._least = own if options.min_score is None else options.min_score
        self._least_text = options.text_threshold
        self._prompts = self._parted(options.classes_per_prompt)

    @classmethod
    def load(
        cls, model: str, options: HfSettings, device: torch.device | str, known: dict[str, str]
    ) -> PromptedDetector:
        """Read a folder or a hub's model; see `trackmill.models.detectors.hf_folder.load_network` for errors."""
        ours = {name: known[name] for name in (*_GROUNDED, *_OWL) if name in known}
        require_type(model, model_type(model, options.revision), ours, "detector that is told what to find here")
        if not options.classes:  # before a gigabyte is read
            raise InputError(f"hf:{options.model}: it finds what it is told: name the classes (--classes person,dog)")
        network, processor = load_network(model, options.revision, "AutoModelForZeroShotObjectDetection", ours)
        return cls(network, processor, options, device)

    def detect(self, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None) -> list[Detections]:
        """See `Detector.detect`; best first. Images that the processor makes equally large share a batch."""
        check_images(images)
        found: list[list[Detections]] = [[] for _ in images]
        for first, prompt in self._prompts:
            for place, one in enumerate(self._pass(images, prompt, first)):
                found[place].append(one)
        return [_best_first(each, self.names) for each in found]

    def _pass(self, images: Sequence[NDArray[np.uint8]], names: Sequence[str], first: int) -> list[Detections]:
        text: Any = "".join(f"{_words(name)}. " for name in names).strip() if self._grounded else [list(names)]
        prepared = [self._processor(images=[as_picture(each)], text=text, return_tensors="pt") for each in images]

        def results(outputs: Any, sizes: Tensor) -> list[dict[str, Any]]:
            read = self._processor.post_process_grounded_object_detection
            if not self._grounded:
                owl: list[dict[str, Any]] = read(outputs, threshold=self._least, target_sizes=sizes)
                return owl
            ids = prepared[0]["input_ids"].expand(len(sizes), -1)
            # Its phrases are put together from tokens and need not be a class; ours come from the same tokens.
            grounded = read(outputs, ids, threshold=self._least, text_threshold=self._least, target_sizes=sizes)
            classes = self._token_classes(ids[0].tolist(), len(names))
            return [
                {"boxes": one["boxes"], "scores": one["scores"], **self._labels(logits, classes)}
                for one, logits in zip(grounded, outputs.logits, strict=True)
            ]

        made = []
        for one in run_in_groups(self._network, prepared, images, results):
            rows = one.get("worded", slice(None))
            labels = one["labels"][rows] + first
            made.append(detections(one["boxes"][rows], one["scores"][rows], labels, self.names))
        return made

    def _labels(self, logits: Tensor, classes: Sequence[int]) -> dict[str, Tensor]:
        """The class of each box that `post_process_grounded_object_detection` keeps, and whether a word reaches it.

        Args:
            logits: (M, T) of all boxes.
            classes: of each token of the sentence, -1 for those of none.
        """
        import torch

        probabilities = logits.sigmoid()  # (M, T)
        kept = probabilities[probabilities.max(dim=-1).values > self._least]
        belongs = torch.tensor(classes, device=logits.device)
        words = torch.nonzero(belongs >= 0)[:, 0]
        best = kept[:, words].max(dim=-1)
        least = 0.0 if self._least_text is None else self._least_text
        return {"labels": belongs[words[best.indices]], "worded": best.values > least}

    def _parted(self, per_prompt: int) -> list[tuple[int, tuple[str, ...]]]:
        """Classes in passes: the number of the first, and the names."""
        most = _OWL_QUERIES if not self._grounded else len(self.names)
        most = min(per_prompt, most) if per_prompt else most
        tokenizer = self._processor.tokenizer
        room = min(getattr(self._network.config, "max_text_len", _MAX_TOKENS), tokenizer.model_max_length) - 2
        parts: list[tuple[int, tuple[str, ...]]] = []
        begin = used = 0
        for place, name in enumerate(self.names):
            cost = 0
            if self._grounded:
                cost = len(tokenizer(f"{_words(name)}.", add_special_tokens=False)["input_ids"])
                if not 1 < cost <= room:
                    fault = "comes to no word" if cost < 2 else f"has {cost} tokens, more than {room}"
                    raise InputError(f"{self._where}: the class {name[:60]!r} {fault}; name it otherwise")
            if place > begin and (place - begin >= most or used + cost > room):
                parts.append((begin, self.names[begin:place]))
                begin, used = place, 0
            used += cost
        return [*parts, (begin, self.names[begin:])]

    def _token_classes(self, ids: Sequence[int], num_classes: int) -> list[int]:
        """Which of the sentence's classes each token belongs to, -1 for dots and special tokens."""
        tokenizer = self._processor.tokenizer
        dot = tokenizer.convert_tokens_to_ids(".")
        special = {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id}
        classes, current = [], 0
        for token in ids:
            classes.append(-1 if token == dot or token in special else current)
            current += token == dot
        assert current == num_classes, f"{self._where}: {current} dots in a sentence of {num_classes} classes"
        return classes


def _words(name: str) -> str:
    """A class as the sentence has it: lower case, and no dot or question mark, which end a class for the network."""
    return " ".join(name.lower().replace(".", " ").replace("?", " ").split())


def _best_first(parts: Sequence[Detections], names: tuple[str, ...]) -> Detections:
    scores = np.concatenate([each.scores for each in parts])
    order = np.argsort(-scores, kind="stable")
    return Detections(
        boxes=np.concatenate([each.boxes for each in parts])[order],
        scores=scores[order],
        labels=np.concatenate([each.labels for each in parts])[order],
        names=names,
    )
