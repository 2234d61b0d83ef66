"""Writes the card of an exported model: a README.md with its facts, origin, use and licence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from trackmill.models.masa.model import Masa
from trackmill.pipeline.export import kinds
from trackmill.pipeline.export.onnx_check import TOLERANCE, Difference
from trackmill.pipeline.export.source import ExportSource, Training
from trackmill.pipeline.shards.card import escape
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.training.recipe import stored_recipe
from trackmill.schemas.config import flatten

MARK = "<!-- written by trackmill, jobs/export.py -->"

_ASIDE = ("step", "epoch", "samples_per_s", "data_wait", "memory_bytes", "bad_samples")
"""Columns of a row about the progress and cost of a step, not about its result."""


def model_card(
    source: ExportSource, files: Mapping[str, str], size: tuple[int, int] | None, compared: Difference | None
) -> str:
    """The card as Markdown; the same arguments give the same text.

    Args:
        source: the model and where it comes from.
        files: SHA-256 of each file beside the card, by name, the weights first.
        size: (H, W) of the ONNX graph's input; None: any.
        compared: result of the check of the graph; None without a graph.
    """
    variant = source.model.variant
    weights = next(iter(files))
    facts = {
        "variant": variant.name,
        "exported from": source.name,
        "SHA-256 of that file": source.sha256 or "not a file",
        **kinds.facts(source.model),
        **{f"SHA-256 of {name}": digest for name, digest in files.items()},
    }
    sections = [
        f"{MARK}\n# {variant.name}\n\n{_introduction(source)}\n",
        _table(("", ""), facts.items()),
        _use(source.model, weights),
    ]
    if compared is not None and isinstance(source.model, Masa):
        sections.append(_onnx(source.model, size, compared))
    sections.append(_parts(source))
    if source.training is not None:
        sections += [_training(source.training), _metrics(source.training)]
    sections.append(_licence(source))
    return "\n".join(sections)


def _introduction(source: ExportSource) -> str:
    what = kinds.introduction(source.model)
    if source.training is None:
        return what
    return f"{what} Trained with Trackmill for {source.training.step:,} steps."


def _use(model: kinds.Exportable, weights: str) -> str:
    return f"""\
## Use

```python
{kinds.usage(model, weights)}
```

Every job of Trackmill takes the file: `python jobs/track.py --model {model.variant.name} --weights {weights} ...`
"""


def _onnx(model: Masa, size: tuple[int, int] | None, compared: Difference) -> str:
    variant = model.variant
    name = f"{variant.name}.onnx"
    if size is not None:
        sizes = f"H = {size[0]} and W = {size[1]} only"
    elif variant.input_side:
        sizes = f"H and W up to {variant.input_side}"
    else:
        sizes = "any H and W"
    return f"""\
## ONNX

`{name}` is the backbone, the adapter if the head needs it, and the embedding head. Scaling to the
variant's size is up to the caller; normalising and padding are inside.

| | shape | type | |
| --- | --- | --- | --- |
| `images` | (B, 3, H, W) | float32 | R, G, B in 0..255; any B, {sizes} |
| `boxes` | (N, 4) | float32 | xyxy in pixels of the images, also beyond their borders; any N, also 0 |
| `box_images` | (N,) | int64 | which image each box is of |
| `embeddings` | (N, {variant.embed_channels}) | float32 | in the order of the boxes |

```python
import onnxruntime

session = onnxruntime.InferenceSession("{name}")
embeddings = session.run(None, {{"images": images, "boxes": boxes, "box_images": box_images}})[0]
```

Checked against PyTorch in {compared.runtime}, on the CPU, with {compared.num_boxes} random boxes in
{compared.tries} batches: the largest difference was {compared.largest:.2g}, where the largest value was \
{compared.scale:.3g} (allowed: {TOLERANCE:g} of it).
"""


def _parts(source: ExportSource) -> str:
    """Parameters of each part, and whether they were trained."""
    frozen = source.training.frozen if source.training else ()
    rows: list[tuple[object, ...]] = []
    for name, part in source.model.named_children():
        total = sum(each.numel() for each in part.parameters())
        row: tuple[object, ...] = (name, f"{total:,}")
        if source.training is not None:
            # Around a MASA lies a detector that is not trained; that of an IP-MOT learns with the rest.
            aside = isinstance(source.model, Masa) and name == "detector"
            row += (f"{0 if aside else _trained(name, part, frozen):,}",)
        rows.append(row)
    heads = ("part", "parameters") + (("trained",) if source.training else ())
    return "## Parts\n\n" + _table(heads, rows)


def _trained(name: str, part: nn.Module, frozen: Iterable[str]) -> int:
    """Parameters of a part that training changed."""
    held = tuple(f"{each}." for each in frozen)
    return sum(
        values.numel() for below, values in part.named_parameters(prefix=name) if not f"{below}.".startswith(held)
    )


def _training(training: Training) -> str:
    recipe = training.recipe
    facts = {
        "run": training.url,
        "recipe": recipe.name,
        "steps": training.step,
        "samples seen": training.step * recipe.data.batch_size,
        "seed": recipe.seed,
        "weights are averaged": "yes" if training.averaged else "no",
        "data set": redact(recipe.data.url),
        "its samples": training.data.get("samples", "unknown"),
        "its fingerprint": training.data.get("fingerprint", "unknown"),
    }
    settings = {key: value for key, value in flatten(stored_recipe(recipe)).items() if value not in ("", [], None)}
    return (
        "## Training\n\n"
        + _table(("", ""), facts.items())
        + "\n<details><summary>Every setting</summary>\n\n"
        + _table(("setting", "value"), settings.items())
        + "\n</details>\n"
    )


def _metrics(training: Training) -> str:
    losses = {name: value for name, value in training.losses.items() if name not in _ASIDE}
    text = "## Metrics\n\n"
    if losses:
        text += f"Losses and telemetry of step {training.losses['step']:,}:\n\n" + _table(("", ""), losses.items())
    else:
        text += "The run has no `metrics.jsonl`.\n"
    if not training.evaluation:
        return text + "\nThe run evaluated nothing; a loss says little about tracking.\n"
    values = {name: value for name, value in training.evaluation.items() if name != "step"}
    return text + f"\nEvaluation after step {training.evaluation['step']:,}:\n\n" + _table(("", ""), values.items())


def _licence(source: ExportSource) -> str:
    text = "## Licence\n\n"
    start = source.training.recipe.model.weights if source.training else source.name  # type: ignore[attr-defined]
    text += kinds.origin(source.model, start)
    if source.training is not None:
        if source.training.licences:
            text += "\nPictures and videos that it was trained on, as the data set's manifest tells:\n\n"
            text += _table(("licence", "samples"), source.training.licences.items())
            text += "\nWhere a licence is unknown, the input did not state one.\n"
        else:
            text += "\nThe licences of the training data could not be read at export: see the data set's own card.\n"
    return text + "\nExporting changes none of this: read the terms of the sources before you pass the files on.\n"


def _table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    lines += [f"| {' | '.join(_cell(value) for value in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return escape(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
