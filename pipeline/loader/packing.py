"""Packs a part of a batch into one block of shared memory, which a worker passes to the training process."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trackmill.schemas.errors import JobError

_ALIGN = 64


class SharedMemoryFull(JobError):
    """A batch does not fit into the machine's shared memory; the text says how much is missing."""


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        # NumPy passes its bytes as a buffer outside the pickle; torch would copy them into it.
        if type(value) is Tensor and value.device.type == "cpu" and value.layout == torch.strided:
            if value.dtype == torch.bfloat16:
                return _bfloat16, (value.detach().contiguous().view(torch.int16).numpy(),)
            return torch.from_numpy, (value.detach().contiguous().numpy(),)
        return NotImplemented


def pack(part: Any) -> tuple[list[tuple[int, int]], Tensor]:
    """Pickle a part, with all its arrays and tensors in one shared tensor.

    Only a handle of a few hundred bytes goes through the pipe. It arrives whole or not at all, even if the sender is
    killed, and a batch takes one file descriptor instead of one for each tensor.

    Returns:
        (offset, length) of each buffer, the pickle last, and the shared uint8 tensor that holds them.

    Raises:
        SharedMemoryFull: there is no room for it.
    """
    buffers: list[pickle.PickleBuffer] = []
    stream = io.BytesIO()
    _Pickler(stream, protocol=5, buffer_callback=buffers.append).dump(part)
    views = [*(buffer.raw() for buffer in buffers), stream.getbuffer()]
    places, end = [], 0
    for view in views:
        places.append((end, view.nbytes))
        end += view.nbytes + -view.nbytes % _ALIGN
    block = torch.empty(0, dtype=torch.uint8)
    # In shared memory from the start, as in torch's own collate function; `share_memory_` would copy once more.
    try:
        storage = block.untyped_storage()._new_shared(end)
    except RuntimeError as error:
        _remove_failed()
        raise SharedMemoryFull(_too_small(end, error)) from None
    block.set_(storage).resize_(end)
    target = memoryview(block.numpy().data)
    for (begin, length), view in zip(places, views):
        target[begin : begin + length] = view
    return places, block


def unpack(packed: tuple[list[tuple[int, int]], Tensor]) -> Any:
    """Restore the part; its arrays and tensors use the shared block, which lives as long as any of them."""
    places, block = packed
    whole = memoryview(block.numpy().data)
    views = [whole[begin : begin + length] for begin, length in places]
    return pickle.loads(views[-1], buffers=views[:-1])


def _remove_failed() -> None:
    """torch leaves the name of a block that it could not make, and with it the room that it got so far.

    A block that was made has no name any more where descriptors are passed on, which is how torch does it by default.
    """
    named = torch.multiprocessing.get_sharing_strategy() != "file_descriptor"
    for path in Path("/dev/shm").glob(f"torch_{os.getpid()}_*"):
        with contextlib.suppress(OSError):
            if not named or not path.stat().st_size:
                path.unlink()


def _too_small(size: int, error: RuntimeError) -> str:
    room = str(error)
    with contextlib.suppress(OSError):
        usage = shutil.disk_usage("/dev/shm")
        room = f"{usage.free / 1e6:,.1f} MB of its {usage.total / 1e6:,.1f} MB are free"
    return (
        f"/dev/shm is full: a loader worker passes on {size / 1e6:,.1f} MB of a batch there, and {room}; make it "
        'larger (docker run --shm-size=8g; in Kubernetes an emptyDir with medium "Memory" at /dev/shm), or lower '
        "data.prefetch, data.workers or data.batch_size; data.workers = 0 needs none"
    )


def _bfloat16(values: Any) -> Tensor:
    return torch.from_numpy(values).view(torch.bfloat16)
