"""Colours and layers for pictures that people look at."""
