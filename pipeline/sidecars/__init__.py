"""Sidecars: tables beside the shards, made with them or later, by whoever has something to say about their samples.

`sidecars/NAME/part-00000012.parquet` holds the rows about the samples of unit 12, and `sidecars/NAME/sidecar.json` says
what the columns mean and what made them. The shards are never touched.
"""
