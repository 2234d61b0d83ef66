"""Parts that several networks share: deformable convolution, anchors, box coding."""
