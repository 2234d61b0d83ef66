"""Parquet files of anybody: what they take is known before they are read; ours hold a checksum of the whole file."""
