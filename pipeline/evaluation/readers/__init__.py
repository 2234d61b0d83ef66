"""Track files of every format, read into `Tracks`."""
