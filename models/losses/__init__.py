"""Losses that several models share. `chain.py` is ScaleTrack's, `rivals.py` what its paper compares it with."""
