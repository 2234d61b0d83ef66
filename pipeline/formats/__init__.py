"""File formats of tracks and detections, parsed once for evaluation and tracking."""
