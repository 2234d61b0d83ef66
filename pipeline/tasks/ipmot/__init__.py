"""IP-MOT as a task: clips for tracking by query, the losses of a clip, evaluation by tracking."""
