"""One module for each family of benchmarks, with its files, preprocessing and averages."""
