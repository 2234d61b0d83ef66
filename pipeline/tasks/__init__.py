"""What can be learnt: one folder a task."""
