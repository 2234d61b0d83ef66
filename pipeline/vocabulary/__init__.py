"""Vocabularies of open-vocabulary detectors: from what `--classes` says to vectors and names.

    vocabulary = read_vocabulary("person,traffic light")        # encoded by CLIP once, then taken from the cache
    vocabulary = read_vocabulary("classes.npz")                 # vectors of your own, (C, 512)
    vocabulary = read_vocabulary("lvis")                        # Detic's own 1203
    write_vocabulary(vocabulary, "s3://bucket/classes.npz")     # for machines without a network, or without CLIP

`classes` says what a text stands for, `files` reads files whole, `names` takes names out of them, `arrays` reads and
writes vectors, `encoding` makes vectors of names, `reading` puts them together.
"""

from trackmill.pipeline.vocabulary.arrays import vocabulary_bytes, vocabulary_from_bytes
from trackmill.pipeline.vocabulary.reading import read_class_names, read_vocabulary, write_vocabulary

__all__ = ["read_class_names", "read_vocabulary", "vocabulary_bytes", "vocabulary_from_bytes", "write_vocabulary"]
