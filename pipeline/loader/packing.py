"""A part of a batch as one block of shared memory, on its way from a worker to the process that trains."""

from __future__ import annotations

import io
import pickle
from typing import Any

import torch
from torch import Tensor

_ALIGN = 64


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        # numpy hands its bytes over beside the pickle, torch would write them into it.
        if type(value) is Tensor and value.device.type == "cpu" and value.layout == torch.strided:
            if value.dtype == torch.bfloat16:
                return _bfloat16, (value.detach().contiguous().view(torch.int16).numpy(),)
            return torch.from_numpy, (value.detach().contiguous().numpy(),)
        return NotImplemented


def pack(part: Any) -> tuple[list[tuple[int, int]], Tensor]:
    """Pickle with all arrays and tensors laid side by side in one shared tensor.

    What goes through the pipe is then a handle of a few hundred bytes, which arrives whole or not at all even when its
    sender is killed, and a batch takes one file descriptor instead of one for each tensor.

    Returns:
        (offset, length) of each buffer, the pickle last, and the shared uint8 tensor that holds them.
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
    # In shared memory from the start, as torch's own collating does it; `share_memory_` would copy once more.
    block.set_(block.untyped_storage()._new_shared(end)).resize_(end)
    target = memoryview(block.numpy().data)
    for (begin, length), view in zip(places, views):
        target[begin : begin + length] = view
    return places, block


def unpack(packed: tuple[list[tuple[int, int]], Tensor]) -> Any:
    """The part again; its arrays and tensors lie in the shared block, which lives as long as one of them."""
    places, block = packed
    whole = memoryview(block.numpy().data)
    views = [whole[begin : begin + length] for begin, length in places]
    return pickle.loads(views[-1], buffers=views[:-1])


def _bfloat16(values: Any) -> Tensor:
    return torch.from_numpy(values).view(torch.bfloat16)
