"""Track files in, trusted numbers out."""
