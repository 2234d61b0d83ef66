"""Turn an official checkpoint (MASA, MeMOTR, DETR of COCO) into safetensors with a card, if every tensor fits."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.models.masa.variants import VARIANTS
from trackmill.pipeline.console.choices import OneOf
from trackmill.pipeline.console.job import Job
from trackmill.pipeline.console.leaving import leave
from trackmill.pipeline.console.options import JobParser, Options
from trackmill.pipeline.console.output import say
from trackmill.pipeline.export.licences import BACKBONE_LICENCES
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import exists, read_bytes
from trackmill.pipeline.storage.output_folder import check_output_folder
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.pipeline.storage.urls import canonical, join
from trackmill.schemas.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from trackmill.pipeline.export.query_files import Converted
    from trackmill.pipeline.storage.fetched import Weights

QUERY_FILES = ("memotr", "dab-deformable-detr", "deformable-detr")
"""`trackmill.pipeline.export.query_files.NAMES`, which a test compares: that module imports torch."""

_MARK = "<!-- written by trackmill, jobs/convert.py -->"


def add_options(p: JobParser) -> None:
    """The checkpoint, and what it must be."""
    add = p.option
    add("--weights", required=True, metavar="URL", help="the checkpoint: a path or URL of .pth/.safetensors")
    add("--output", required=True, metavar="FOLDER", help="gets MODEL.safetensors and README.md")
    known = (*VARIANTS, *QUERY_FILES)
    names = f"what it must be: {', '.join(known)} (default: recognised by its tensors)"
    add("--model", aliases=["--variant"], type=OneOf(known), metavar="NAME", help=names)
    add("--sha256", default="", metavar="HEX", help="what the file must have")


def run(options: Options) -> None:
    """Check the folder, convert, say where the files are."""
    folder = canonical(options.output)
    check_output_folder(folder, ("README.md",), "--output")
    card = join(folder, "README.md")
    if exists(card) and not read_bytes(card).startswith(_MARK.encode()):
        raise InputError(f"{redact(card)} is somebody else's: give --output a folder of its own")
    target = convert(options.weights, folder, card, options.model, options.sha256)
    say(f"weights: {redact(target)}")
    say(f"model card: {redact(card)}")


def convert(source: str, folder: str, card: str, variant: str | None, sha256: str) -> str:
    """Check `source` and write it as safetensors, and a card beside it.

    Of a MASA every tensor is kept, also those of a detector that tracking leaves out. Trackers and detectors by query
    get our names, and what is in the source twice is there once.

    Args:
        source: path or URL of the checkpoint.
        folder, card: URLs of what is written.
        variant: what it must be; None: recognised by its tensors.
        sha256: what the file must have; empty: anything.

    Returns:
        URL of the safetensors file.

    Raises:
        InputError: damaged, of no or another variant, or tensors that do not fit; names them.
    """
    from trackmill.models.masa.variants import metadata_of
    from trackmill.models.registry import recognise
    from trackmill.pipeline.export.query_files import converted, name_of
    from trackmill.pipeline.storage.fetched import fetch_weights
    from trackmill.pipeline.training.weight_files import write_tensors
    from trackmill.pipeline.weights import build_model, read_fetched

    weights = fetch_weights(source, sha256)
    checkpoint = read_fetched(weights)
    found = variant or name_of(checkpoint) or recognise(checkpoint)
    if found in QUERY_FILES:
        result = converted(checkpoint, found, source=weights.name, source_sha256=weights.sha256)
        target = join(folder, f"{found}.safetensors")
        write_tensors(target, dict(sorted(result.tensors.items())), result.metadata)
        publish_bytes(card, _query_card(weights, result).encode())
        return target
    if found is None:
        raise InputError(f"{weights.name}: cannot tell the variant from its tensors; name it with --model")
    if found not in VARIANTS:
        raise InputError(
            f"{weights.name}: {found} has no official checkpoints to convert; trackmill export --weights FILE writes "
            "its own files with a card"
        )
    model = build_model(found, checkpoint)
    target = join(folder, f"{found}.safetensors")
    metadata = metadata_of(model.variant, source=weights.name, source_sha256=weights.sha256)
    write_tensors(target, dict(sorted(checkpoint.tensors.items())), metadata)
    publish_bytes(card, _card(weights, found, checkpoint.tensors, model.variant.compatible_offsets).encode())
    return target


def _query_card(weights: Weights, result: Converted) -> str:
    """The model card of a tracker or detector by query, Markdown."""
    facts = {
        "converted from": f"`{weights.name}`",
        "SHA-256 of that file": f"`{weights.sha256}`",
        "tensors": len(result.tensors),
        "values": f"{sum(values.numel() for values in result.tensors.values()):,}",
        **result.facts,
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    return f"""{_MARK}
# {result.name}

{result.what} in plain PyTorch.

| | |
| --- | --- |
{rows}

Values are those of the source; nothing was rounded. Names are ours.

## Use

```
{result.use}
```

## Licence

Converting changes none: read the terms of the source before you pass the file on.
"""


def _card(weights: Weights, variant: str, tensors: Mapping[str, Tensor], compatible_offsets: bool) -> str:
    """The model card, Markdown."""
    num_values = sum(values.numel() for values in tensors.values())
    chosen = VARIANTS[variant]
    used = sum(not name.startswith(chosen.aside) for name in tensors)
    return f"""{_MARK}
# {variant}

MASA ("Matching Anything by Segmenting Anything", Li et al., CVPR 2024) in plain PyTorch: embeddings that tell objects
of one frame apart and find them again in the next.

| | |
| --- | --- |
| variant | {variant} |
| converted from | `{weights.name}` |
| SHA-256 of that file | `{weights.sha256}` |
| tensors | {len(tensors)}, of which tracking uses {used} |
| values | {num_values:,} |
| backbone | {chosen.backbone} |
| coarser levels | {"sampled as in the released code" if compatible_offsets else "enlarged first"} |

Names, shapes and values are those of the source; nothing was rounded or left out.

## Use

```python
import trackmill.models.masa

model = trackmill.models.masa.load("{variant}", "{variant}.safetensors")
embeddings = model.embed(images, boxes)  # images: (B, 3, H, W) float RGB 0..255; boxes: a list of (N, 4) xyxy
```

## Licence

The code of MASA is Apache-2.0; its authors state no separate licence for their weights. Moreover,
{BACKBONE_LICENCES[chosen.backbone]}.
Converting changes none of this: read the terms of the source before you pass the file on.
"""


JOB = Job(name="convert", description=__doc__, add_options=add_options, run=run, extra="masa")
main = JOB.main

if __name__ == "__main__":
    leave(main())
