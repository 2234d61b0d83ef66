"""Tests of detectors, and of the size at which they see frames."""
