"""From the bytes of a checkpoint to tensors in a model: reading, checking, fitting."""
