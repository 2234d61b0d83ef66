"""Tests of tracking: frames, detections, embeddings, files, and all of it together."""
