"""Turn an official MASA checkpoint into safetensors with a model card, after checking that every tensor fits."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.models.masa.variants import VARIANTS
from trackmill.pipeline.export.licences import BACKBONE_LICENCES
from trackmill.pipeline.storage.credentials import redact, scrub
from trackmill.pipeline.storage.fetched import Weights, fetch_weights
from trackmill.pipeline.storage.files import canonical, exists, join, read_bytes
from trackmill.pipeline.storage.publish import publish_bytes

if TYPE_CHECKING:
    from torch import Tensor

_MARK = "<!-- written by trackmill, jobs/convert.py -->"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="convert.py", description=__doc__)
    p.add_argument("--weights", required=True, metavar="URL", help="the checkpoint: a path or URL of .pth/.safetensors")
    p.add_argument("--output", required=True, metavar="FOLDER", help="gets VARIANT.safetensors and README.md")
    p.add_argument("--variant", choices=list(VARIANTS), help="what it must be (default: found out from the tensors)")
    p.add_argument("--sha256", default="", metavar="HEX", help="what the file must have")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit status: 0 fine, 2 the user, a file or the storage made a mistake."""
    options = parser().parse_args(arguments)
    try:
        folder = canonical(options.output)
        card = join(folder, "README.md")
        if exists(card) and not read_bytes(card).startswith(_MARK.encode()):
            raise ValueError(f"{redact(card)} is somebody else's: give --output a folder of its own")
        target = convert(options.weights, folder, card, options.variant, options.sha256)
        print(f"weights: {redact(target)}\nmodel card: {redact(card)}")
        return 0
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {scrub(str(error))}", file=sys.stderr)
        return 2


def convert(source: str, folder: str, card: str, variant: str | None, sha256: str) -> str:
    """Check `source` and write it as safetensors, and a card beside it.

    Every tensor of the source is kept, also those of a detector that tracking leaves out.

    Args:
        source: path or URL of the checkpoint.
        folder, card: URLs of what is written.
        variant: what it must be; None: found out.
        sha256: what the file must have; empty: anything.

    Returns:
        URL of the safetensors file.

    Raises:
        ValueError: damaged, of no or another variant, or tensors that do not fit; names them.
    """
    from trackmill.models.masa.variants import metadata_of
    from trackmill.models.registry import recognise
    from trackmill.pipeline.training.checkpoint import write_tensors
    from trackmill.pipeline.weights import build_model, read_fetched

    weights = fetch_weights(source, sha256)
    checkpoint = read_fetched(weights)
    found = variant or recognise(checkpoint)
    if found is None:
        raise ValueError(f"{weights.name}: cannot tell the variant from its tensors; name it with --variant")
    model = build_model(found, checkpoint)
    target = join(folder, f"{found}.safetensors")
    metadata = metadata_of(model.variant, source=weights.name, source_sha256=weights.sha256)
    write_tensors(target, dict(sorted(checkpoint.tensors.items())), metadata)
    publish_bytes(card, _card(weights, found, checkpoint.tensors, model.variant.compatible_offsets).encode())
    return target


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


if __name__ == "__main__":
    sys.exit(main())
