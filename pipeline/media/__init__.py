"""Pictures, videos and masks: decoding, scaling, drawing; nothing about data sets."""
