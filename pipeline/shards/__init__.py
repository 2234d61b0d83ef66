"""Shards: deterministic tars, their receipts and manifest, the data set card, and the check that all is well."""
