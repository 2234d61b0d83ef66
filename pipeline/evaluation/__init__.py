"""Scores tracks against ground truth by the rules of published benchmarks."""
