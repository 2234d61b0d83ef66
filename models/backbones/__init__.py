"""Backbones: networks that compute feature maps of a batch of pictures. Their layers come from existing packages."""
