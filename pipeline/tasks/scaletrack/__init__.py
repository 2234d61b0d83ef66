"""ScaleTrack: contrast along the chains of clips."""
