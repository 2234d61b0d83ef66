"""Numbers for Prometheus: defined once, and exported by Ray, by a port of this process, or in a text file."""
