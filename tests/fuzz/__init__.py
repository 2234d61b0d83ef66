"""Fuzzing of every format that is read: mutated files give right data or one clear line, and nothing else."""
