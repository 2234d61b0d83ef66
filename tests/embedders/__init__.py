"""Tests of embedders: boxes in frames to appearance embeddings."""
