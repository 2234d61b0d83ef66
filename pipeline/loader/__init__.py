"""Turns shards into batches: orders samples by a seed, fetches files, decodes samples and makes views."""
