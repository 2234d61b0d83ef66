"""One training loop: a task says what is learnt, an engine how tensors are spread, checkpoints where to go on."""
