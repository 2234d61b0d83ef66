"""Tests of the trackers: identities from boxes, scores, labels and embeddings."""
