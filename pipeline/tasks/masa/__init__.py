"""MASA: contrast between two views of a picture."""
