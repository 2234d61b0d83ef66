"""One metric a file: counts of one video that can be added up, and scores of the sum."""
