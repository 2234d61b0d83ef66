"""The audit of pseudo-negatives: how many there are, what the trainer keeps, and which look like unlabelled objects."""
