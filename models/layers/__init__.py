"""Parts that several networks share: deformable convolution, anchors, the coding of boxes."""
