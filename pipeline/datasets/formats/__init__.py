"""Formats that data sets are written in, for tools that do not read shards."""
