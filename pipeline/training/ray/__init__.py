"""Ranks as Ray Train workers."""
