"""What jobs share: options, progress, exit codes."""
