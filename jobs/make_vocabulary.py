"""Turn names of classes into a file of vectors, which open-vocabulary detectors take without CLIP and a network."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.pipeline.console.job import Job
from trackmill.pipeline.console.leaving import leave
from trackmill.pipeline.console.options import JobParser, Options
from trackmill.pipeline.console.output import clean, say
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import exists
from trackmill.pipeline.storage.scratch import check_writable
from trackmill.pipeline.storage.urls import canonical
from trackmill.schemas.errors import InputError

_SHOWN = 5
"""So many names are printed; the file has all."""


def add_options(p: JobParser) -> None:
    """The classes, who encodes them, and where the file goes."""
    add = p.option
    classes = "names with commas between, a text file with a name a line, .npy or .npz, or lvis"
    add("--classes", required=True, metavar="NAMES", help=classes)
    weights = "CLIP's weights, path or URL, which encode names (default: OpenAI's ViT-B/32, fetched once)"
    add("--text-weights", default="", metavar="URL", help=weights)
    add("--output", required=True, metavar="FILE", help="where the vocabulary goes, a path or URL that ends in .npz")


def run(options: Options) -> None:
    """Read or encode, write, say what is in the file."""
    target = canonical(options.output)
    if not target.lower().endswith(".npz"):
        raise InputError(f"--output {redact(target)}: a vocabulary is written as .npz; give a name that ends so")
    check_writable(target)
    from trackmill.pipeline.vocabulary import read_vocabulary, write_vocabulary

    vocabulary = read_vocabulary(options.classes, options.text_weights)
    already = exists(target)
    write_vocabulary(vocabulary, target)
    names = ", ".join(vocabulary.names[:_SHOWN]) + (", ..." if len(vocabulary) > _SHOWN else "")
    say(f"vocabulary: {redact(target)}{' (replaced)' if already else ''}")
    say(f"{len(vocabulary):,} classes, vectors of {vocabulary.width} numbers: {clean(names, 300)}")
    say(f"SHA-256 of vectors and names: {vocabulary.sha256}")


JOB = Job(name="vocabulary", description=__doc__, add_options=add_options, run=run, extra="detic")
main = JOB.main

if __name__ == "__main__":
    leave(main())
