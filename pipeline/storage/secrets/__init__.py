"""What must not be written down: how keys look, which values are secret here, and the queries of signed URLs."""
