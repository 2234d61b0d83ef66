"""A local page over a mined data set: samples, filters, layers, clips, sidecars, where each sample comes from."""
