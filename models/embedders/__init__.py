"""Embedders: uint8 RGB frames and boxes in, appearance embeddings out; see `base.Embedder`."""
