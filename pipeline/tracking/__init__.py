"""Tracking: frames and detections in, tracks out, as files, as a video, or inside someone's own program."""
