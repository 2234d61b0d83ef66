"""Take a trained model away: safetensors with a card, and an ONNX graph that is checked against PyTorch."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.models.masa.variants import VARIANTS, metadata_of
from trackmill.pipeline.export.card import MARK, card_text
from trackmill.pipeline.export.onnx_check import TOLERANCE, Difference, compare
from trackmill.pipeline.export.source import Source, from_run, from_weights
from trackmill.pipeline.storage.credentials import redact, scrub
from trackmill.pipeline.storage.files import canonical, exists, join, read_bytes
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.pipeline.training.checkpoint import write_tensors


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="export.py", description=__doc__)
    add = p.add_argument
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", metavar="URL", help="what jobs/train.py was given as --output")
    what.add_argument("--weights", metavar="URL", help="any checkpoint, .pth or .safetensors; imagenet for masa_lite0")
    add("--checkpoint", default="final", metavar="WHICH", help="of the run: final (default), latest, or a step")
    add("--model", metavar="NAME", help=f"of --weights: {', '.join(VARIANTS)} (default: found out from the tensors)")
    add("--output", required=True, metavar="FOLDER", help="gets VARIANT.safetensors, README.md and VARIANT.onnx")
    add("--onnx", action="store_true", help="write the ONNX graph too: backbone and embedding head, for any boxes")
    add("--height", type=_positive, metavar="H", help="of the pictures the graph is for (default: any)")
    add("--width", type=_positive, metavar="W", help="the same")
    return p


def run(options: argparse.Namespace) -> None:
    """Read, check, write."""
    if (options.height is None) != (options.width is None):
        raise ValueError("give --height and --width together, or neither for a graph that takes any size")
    if options.height and not options.onnx:
        raise ValueError("--height and --width are of the ONNX graph: add --onnx")
    if options.run and options.model:
        raise ValueError("--model is for --weights: a run knows its own")
    if options.weights and options.checkpoint != "final":
        raise ValueError("--checkpoint is for --run: --weights is one file")
    size = (options.height, options.width) if options.height else None
    folder = canonical(options.output)
    card = join(folder, "README.md")
    if exists(card) and not read_bytes(card).startswith(MARK.encode()):
        raise ValueError(f"{redact(card)} is somebody else's: give --output a folder of its own")
    source = from_run(options.run, options.checkpoint) if options.run else from_weights(options.weights, options.model)
    export(source, folder, card, size=size, onnx=options.onnx)


def export(source: Source, folder: str, card: str, *, size: tuple[int, int] | None, onnx: bool) -> None:
    """Write the files, the card last, and say where they are. Nothing is written unless the graph is right.

    Args:
        source: the model.
        folder, card: URLs of what is written.
        size: (H, W) that the graph is for; None: any.
        onnx: whether there is to be one.

    Raises:
        ValueError: the variant cannot be exported so, or the graph differs from the model.
        ImportError: a package is missing.
        OSError: could not be written.
    """
    variant = source.model.variant
    graph, compared = _graph(source, size) if onnx else (b"", None)
    more = dict(source.told) | {"source": source.name, "source_sha256": source.sha256}
    if source.training is not None:
        more |= {"step": str(source.training.step), "recipe": source.training.recipe.name}
        more |= {"data_fingerprint": str(source.training.data.get("fingerprint", ""))}
    target = join(folder, f"{variant.name}.safetensors")
    written = write_tensors(target, source.model.state_dict(), metadata_of(variant, **more))
    say(f"weights: {redact(target)}")
    files = {f"{variant.name}.safetensors": written["sha256"]}
    if graph:
        target = join(folder, f"{variant.name}.onnx")
        publish_bytes(target, graph)
        say(f"ONNX graph: {redact(target)}")
        files[f"{variant.name}.onnx"] = hashlib.sha256(graph).hexdigest()
    publish_bytes(card, card_text(source, files, size, compared).encode())
    say(f"model card: {redact(card)}")


def _graph(source: Source, size: tuple[int, int] | None) -> tuple[bytes, Difference]:
    from trackmill.models.masa.onnx import to_onnx

    graph = to_onnx(source.model, size).SerializeToString(deterministic=True)
    compared = compare(source.model, graph, size)
    say(
        f"the graph differs from PyTorch by {compared.largest:.2g} at most, {compared.relative:.2g} of the largest "
        f"value (allowed {TOLERANCE:g}): {compared.num_boxes} boxes in {compared.tries} batches, {compared.runtime}"
    )
    return graph, compared


def say(line: str) -> None:
    """One line for people, without credentials."""
    print(scrub(line), flush=True)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit status: 0 fine, 2 the user, a file or the storage made a mistake, or the graph is wrong."""
    options = parser().parse_args(arguments)
    try:
        run(options)
        return 0
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {scrub(str(error))}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
