"""Take a trained model away: safetensors with a card, and an ONNX graph that is checked against PyTorch."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.models.outside import is_outside
from trackmill.models.registry import MODELS
from trackmill.pipeline.console.choices import OneOf
from trackmill.pipeline.console.job import Job
from trackmill.pipeline.console.leaving import leave
from trackmill.pipeline.console.options import JobParser, Options, positive
from trackmill.pipeline.console.output import say
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import exists, read_bytes
from trackmill.pipeline.storage.output_folder import check_output_folder
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.pipeline.storage.urls import canonical, join
from trackmill.schemas.errors import InputError

if TYPE_CHECKING:
    from trackmill.pipeline.export.onnx_check import Difference
    from trackmill.pipeline.export.source import ExportSource


def add_options(p: JobParser) -> None:
    """What is exported, and in which forms."""
    add = p.option
    what = p.add_mutually_exclusive_group(required=True)
    add("--run", group=what, metavar="URL", help="the --output of a training run")
    add(
        "--weights",
        group=what,
        metavar="URL",
        help="any checkpoint, .pth or .safetensors; imagenet for masa_lite0(_colour)",
    )
    add("--checkpoint", default="final", metavar="WHICH", help="of the run: final (default), latest, or a step")
    models = f"of --weights: {', '.join(MODELS)} (default: recognised by its tensors)"
    add("--model", type=OneOf(MODELS, is_outside), metavar="NAME", help=models)
    add("--output", required=True, metavar="FOLDER", help="gets MODEL.safetensors, README.md and MODEL.onnx")
    add("--onnx", action="store_true", help="write the ONNX graph too: backbone and embedding head, for any boxes")
    add("--height", type=positive, metavar="H", help="of the pictures the graph is for (default: any)")
    add("--width", type=positive, metavar="W", help="the same")


def run(options: Options) -> None:
    """Read, check, write."""
    if (options.height is None) != (options.width is None):
        raise InputError("give --height and --width together, or neither for a graph that takes any size")
    if options.height and not options.onnx:
        raise InputError("--height and --width are of the ONNX graph: add --onnx")
    if options.run and options.model:
        raise InputError("--model is for --weights: a run knows its own")
    if options.weights and options.checkpoint != "final":
        raise InputError("--checkpoint is for --run: --weights is one file")
    size = (options.height, options.width) if options.height else None
    folder = canonical(options.output)
    check_output_folder(folder, ("README.md",), "--output")

    from trackmill.pipeline.export.card import MARK
    from trackmill.pipeline.export.source import from_run, from_weights

    card = join(folder, "README.md")
    if exists(card) and not read_bytes(card).startswith(MARK.encode()):
        raise InputError(f"{redact(card)} is somebody else's: give --output a folder of its own")
    source = from_run(options.run, options.checkpoint) if options.run else from_weights(options.weights, options.model)
    export(source, folder, card, size=size, onnx=options.onnx)


def export(source: ExportSource, folder: str, card: str, *, size: tuple[int, int] | None, onnx: bool) -> None:
    """Write the files, the card last, and say where they are. Nothing is written unless the graph is right.

    Args:
        source: the model.
        folder, card: URLs of what is written.
        size: (H, W) that the graph is for; None: any.
        onnx: whether there is to be one.

    Raises:
        InputError: the model cannot be exported so.
        JobError: the graph differs from the model.
        MissingPackage: ONNX is not installed.
        OSError: could not be written.
    """
    from trackmill.pipeline.export.card import model_card
    from trackmill.pipeline.export.kinds import metadata_of
    from trackmill.pipeline.training.weight_files import write_tensors

    variant = source.model.variant
    graph, compared = _graph(source, size) if onnx else (b"", None)
    more = dict(source.metadata) | {"source": source.name, "source_sha256": source.sha256}
    if source.training is not None:
        more |= {"step": str(source.training.step), "recipe": source.training.recipe.name}
        more |= {"data_fingerprint": str(source.training.data.get("fingerprint", ""))}
    target = join(folder, f"{variant.name}.safetensors")
    written = write_tensors(target, source.model.state_dict(), metadata_of(source.model, **more))
    say(f"weights: {redact(target)}")
    files = {f"{variant.name}.safetensors": written["sha256"]}
    if graph:
        target = join(folder, f"{variant.name}.onnx")
        publish_bytes(target, graph)
        say(f"ONNX graph: {redact(target)}")
        files[f"{variant.name}.onnx"] = hashlib.sha256(graph).hexdigest()
    publish_bytes(card, model_card(source, files, size, compared).encode())
    say(f"model card: {redact(card)}")


def _graph(source: ExportSource, size: tuple[int, int] | None) -> tuple[bytes, Difference]:
    from trackmill.models.masa.model import Masa
    from trackmill.models.masa.onnx import to_onnx
    from trackmill.pipeline.export.onnx_check import TOLERANCE, compare

    if not isinstance(source.model, Masa):
        raise InputError(
            f"--onnx: {source.model.variant.name} remembers earlier frames, and there is no graph of that so far: "
            "leave --onnx out, and use the .safetensors"
        )
    graph = to_onnx(source.model, size).SerializeToString(deterministic=True)
    compared = compare(source.model, graph, size)
    say(
        f"the graph differs from PyTorch by {compared.largest:.2g} at most, {compared.relative:.2g} of the largest "
        f"value (allowed {TOLERANCE:g}): {compared.num_boxes} boxes in {compared.tries} batches, {compared.runtime}"
    )
    return graph, compared


JOB = Job(name="export", description=__doc__, add_options=add_options, run=run, extra="train")
main = JOB.main

if __name__ == "__main__":
    leave(main())
