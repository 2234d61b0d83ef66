"""Detectors: uint8 RGB images in, boxes with scores and labels out; see `base.Detector`."""
