"""Shots of a video: between which of its frames one shot ends and another begins."""
