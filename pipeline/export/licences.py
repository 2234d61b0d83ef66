"""Licences of the usual weights of each backbone, for model cards. Imports nothing."""

BACKBONE_LICENCES = {
    "resnet50": "the ResNet-50 inside started from ImageNet weights",
    "sam_vit_b": "the SAM inside is Meta's (Apache-2.0), trained on SA-1B, whose pictures have terms of their own",
    "sam_vit_h": "the SAM inside is Meta's (Apache-2.0), trained on SA-1B, whose pictures have terms of their own",
    "swin_b_window7": "the Detic inside is Meta's (code Apache-2.0), trained on LVIS, COCO and ImageNet-21K",
    "swin_b_window12": "the Grounding DINO inside is IDEA's (Apache-2.0), with a BERT of Google's (Apache-2.0)",
    "efficientnet_lite0_tensorflow": "the EfficientNet-Lite0 inside is Google's (Apache-2.0), trained on ImageNet",
}
