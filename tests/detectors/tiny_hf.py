"""Detectors of transformers with random weights, small enough for a test, as folders that `save_pretrained` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WORDS = ("cat", "dog", "traffic", "light", "person", "a", "red", "bird")


def save_detr(folder: Path, names: tuple[str, ...] = ("cat", "dog", "bird"), seed: int = 0) -> Path:
    """DETR on a ResNet of 8 to 16 channels, with its processor at a side of 64 pixels."""
    from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor

    config = DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=_resnet(("stage4",)),
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_queries=12,
        id2label=dict(enumerate(names)),
        label2id={name: label for label, name in enumerate(names)},
    )
    torch.manual_seed(seed)
    network = DetrForObjectDetection(config)
    with torch.no_grad():  # as it is drawn, all queries give nearly the same box of the same class
        network.model.query_position_embeddings.weight.mul_(10)
        for value in network.model.decoder.layers.parameters():
            value.mul_(8 if value.dim() > 1 else 1)
        for layer in (network.class_labels_classifier, *network.bbox_predictor.layers):
            layer.weight.mul_(12)
        network.class_labels_classifier.bias[-1] = -2  # not everything is nothing
    return _save(folder, network, DetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}))


def save_grounding_dino(folder: Path, seed: int = 0) -> Path:
    """Grounding DINO on the same ResNet and a BERT of one layer, with a tokenizer of a few words."""
    from transformers import (
        BertConfig,
        BertTokenizerFast,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
    )

    folder.mkdir(parents=True, exist_ok=True)
    letters = [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?"]
    vocabulary = [*special, *WORDS, *[each[2:] for each in letters if each[2:] not in WORDS], *letters]
    tokenizer = BertTokenizerFast(vocab={word: place for place, word in enumerate(vocabulary)}, model_max_length=64)
    config = GroundingDinoConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=_resnet(("stage2", "stage3", "stage4")),
        text_config=BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=64,
        ).to_dict(),
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_queries=12,
        num_feature_levels=4,
        max_text_len=32,
    )
    torch.manual_seed(seed)
    network = GroundingDinoForObjectDetection(config)
    with torch.no_grad():
        network.model.text_projection.weight.mul_(0.5)
    images = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    return _save(folder, network, GroundingDinoProcessor(images, tokenizer))


def _resnet(stages: tuple[str, ...]) -> Any:
    from transformers import ResNetConfig

    return ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=list(stages),
    )


def _save(folder: Path, network: Any, processor: Any) -> Path:
    network.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
