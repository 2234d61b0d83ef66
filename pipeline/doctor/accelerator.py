"""GPU, driver and PyTorch: whether they are there, fit each other, and compute."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from trackmill.pipeline.console.words import readable_bytes
from trackmill.pipeline.doctor.asking import NoAnswer, ask_program, ask_python
from trackmill.pipeline.doctor.finding import Finding, Level

_TORCH = """
import torch
cuda = torch.cuda
answer = {"version": torch.__version__, "cuda": torch.version.cuda or "", "available": cuda.is_available(),
          "devices": [], "error": ""}
try:
    for number in range(cuda.device_count() if cuda.is_available() else 0):
        free, total = cuda.mem_get_info(number)
        ones = torch.ones(64, 64, device=f"cuda:{number}")
        answer["devices"].append({"name": cuda.get_device_name(number), "free": free, "total": total,
            "bfloat16": cuda.is_bf16_supported(), "computes": float((ones @ ones).sum()) == 64.0 ** 3})
except Exception as error:
    answer["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
"""
_QUERY = ("--query-gpu=name,driver_version", "--format=csv,noheader")
_BUSY = 0.2
_CPU_ADVICE = "install a build of PyTorch for this driver (see the selector on PyTorch's page), then run this again"


def check_accelerator(timeout_s: float) -> list[Finding]:
    """The GPUs that the driver knows and those that PyTorch can use."""
    smi = ask_program("nvidia-smi", *_QUERY)
    cards = [line.strip() for line in (smi or "").splitlines() if line.strip()]
    if find_spec("torch") is None:
        said = f"PyTorch is not installed; {len(cards)} GPUs are here" if cards else "no PyTorch, and no GPU"
        note = "; mining with the proposer graph, inspect and evaluate need neither" if not cards else ""
        return [Finding(about="gpu", level=Level.NOTE, said=said + note)]
    try:
        torch = ask_python(_TORCH, timeout_s)
    except NoAnswer as error:
        return [
            Finding(
                about="gpu",
                level=Level.FAULT,
                said=f"PyTorch cannot be used: {error}",
                mend="install it again with the pinned versions: pip install --constraint constraints.txt torch "
                "torchvision; if a GPU's driver hangs, restart the machine",
            )
        ]
    return judge(cards, torch)


def judge(cards: list[str], torch: dict[str, Any]) -> list[Finding]:
    """Findings of what `nvidia-smi` lists, `name, driver` each, and of what PyTorch says of itself."""
    version = f"PyTorch {torch['version']}"
    driver = f"driver {cards[0].rpartition(', ')[2]}" if cards else "no NVIDIA driver"
    if torch["error"]:
        mend = f"the GPU is out of order, in use, or not for this build ({driver}); try one matrix product by hand"
        return [Finding(about="gpu", level=Level.FAULT, said=f"{version}: {torch['error']}", mend=mend)]
    if not torch["available"]:
        if not cards:
            said = f"no GPU: {version} computes on CPUs; SAM, Detic and training of large recipes want one"
            return [Finding(about="gpu", level=Level.NOTE, said=said)]
        built = f"is built for CUDA {torch['cuda']}" if torch["cuda"] else "is built for CPUs"
        said = f"{len(cards)} GPUs ({cards[0]}), but {version} {built} and can use none"
        return [Finding(about="gpu", level=Level.FAULT, said=said, mend=_CPU_ADVICE)]
    return [_device(number, each, version, driver) for number, each in enumerate(torch["devices"])]


def _device(number: int, device: dict[str, Any], version: str, driver: str) -> Finding:
    about = f"gpu {number}"
    said = (
        f"{device['name']}, {readable_bytes(device['free'])} of {readable_bytes(device['total'])} free, {driver}, "
        f"{version}{'' if device['bfloat16'] else ', no bfloat16'}"
    )
    if not device["computes"]:
        mend = "do not trust this device: a small product of ones comes out wrong; have its memory checked"
        return Finding(about=about, level=Level.FAULT, said=f"{said}; it computes wrongly", mend=mend)
    if device["free"] < (1 - _BUSY) * device["total"]:
        mend = "end the other process (nvidia-smi lists it), or choose another device by CUDA_VISIBLE_DEVICES"
        return Finding(about=about, level=Level.WARNING, said=f"{said}; somebody else uses it", mend=mend)
    return Finding(about=about, said=said)
