"""Typed records that cross a border between two parts of Trackmill. No I/O, no torch, no Ray."""
