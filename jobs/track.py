"""Track anything: `python jobs/track.py --video URL --detections FILE --weights URL --output DIR`."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.models.masa.variants import VARIANTS
from trackmill.pipeline.storage.credentials import redact, scrub
from trackmill.pipeline.storage.files import canonical, join
from trackmill.pipeline.tracking.build import UNTRAINED, make_parts, read_file_detections
from trackmill.pipeline.tracking.frames import FrameReader, open_frames
from trackmill.pipeline.tracking.image_table import ImageTable, read_image_table
from trackmill.pipeline.tracking.run import Outcome, Parts, track_video
from trackmill.pipeline.tracking.settings import PRESETS, TrackConfig, track_config
from trackmill.pipeline.tracking.timing import StageTimes, TrackingProgress
from trackmill.pipeline.tracking.video_writer import VideoWriter
from trackmill.pipeline.tracking.writers import CocoWriter, MotWriter, ParquetWriter, TrackWriter

USER_ERROR, INCOMPLETE, INTERRUPTED = 2, 3, 130
SUFFIXES = {"mot": "txt", "coco": "json", "tao": "json", "parquet": "parquet"}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="track.py", description=__doc__)
    add = p.add_argument
    add("--video", required=True, metavar="URL", help="a video, a folder of pictures, or a MOTChallenge sequence")
    add(
        "--detections",
        required=True,
        metavar="WHAT",
        help="a file (MOTChallenge .txt, COCO .json, .parquet), torchvision:NAME, or masa: its own proposal head",
    )
    add("--output", required=True, metavar="DIR", help="gets NAME.txt, NAME.json, NAME.parquet, NAME.mp4")
    add("--model", default="masa_r50", metavar="NAME", help=f"{', '.join(VARIANTS)} (default masa_r50)")
    add("--weights", metavar="URL", help="its checkpoint, official .pth or our .safetensors; imagenet for masa_lite0")
    add("--tracker", default="tao", choices=PRESETS, help="rule and official settings (default tao, as in the demo)")
    add("--format", nargs="+", default=["mot"], choices=SUFFIXES, help="what is written (default mot)")
    add("--save-video", action="store_true", help="write an mp4 with boxes, masks, ids and trails")
    add("--masks", action="store_true", help="segment what is tracked with SAM's decoder (masa_sam_*)")
    add("--min-score", type=float, metavar="X", help="leave out detections below it")
    add("--detector-weights", metavar="URL", help=f"of torchvision:NAME; default: published; {UNTRAINED}: random")
    add("--images", metavar="FILE", help="COCO-VID or TAO file that tells the image id of each frame")
    add("--name", metavar="NAME", help="of the sequence; default: of the file or folder")
    add("--batch", type=_positive, default=8, metavar="N", help="frames detected and embedded together (default 8)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default auto: a GPU where there is one)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting: tracker.match_score_thr=0.6")
    return p


def run(options: argparse.Namespace) -> int:
    """Track and sum up; returns the exit code."""
    config = track_config(options.set)
    output = canonical(options.output)
    if "coco" in options.format and "tao" in options.format:
        raise ValueError("--format: coco and tao both write NAME.json; choose one, or run twice")
    with contextlib.closing(open_frames(options.video, config.read)) as reader:
        reader.name = options.name or reader.name
        if "/" in reader.name or reader.name in ("", ".", ".."):
            raise ValueError(f"--name {reader.name!r}: files are called by it, so it holds no slash")
        from_file = read_file_detections(options.detections, reader, options.images, options.min_score)
        table = read_image_table(options.images, reader.name, reader.file_names) if options.images else None
        parts = make_parts(
            model=options.model,
            weights=options.weights,
            detections=options.detections,
            from_file=from_file,
            detector_weights=options.detector_weights,
            masks=options.masks,
            tracker=options.tracker,
            device=options.device,
            batch_size=options.batch,
            min_score=options.min_score,
            config=config,
        )
        if options.weights is None:
            print("note: no --weights, so the model's are random: identities are by chance", file=sys.stderr)
        times = StageTimes()
        progress = TrackingProgress(reader.num_frames, times)
        writers = make_writers(options, output, reader, parts, table, config)
        try:
            outcome = track_video(reader, parts, writers, times, progress)
        finally:
            progress.close()
        if from_file is not None and len(from_file) > from_file.num_given:
            left = len(from_file) - from_file.num_given
            print(f"note: {left:,} detections in the file are of frames that were not read", file=sys.stderr)
    return summarise(reader, outcome)


def make_writers(
    options: argparse.Namespace,
    output: str,
    reader: FrameReader,
    parts: Parts,
    table: ImageTable | None,
    config: TrackConfig,
) -> list[TrackWriter]:
    """One for each file that is asked for."""
    names, ids = parts.detector.names, parts.detector.category_ids
    writers: list[TrackWriter] = []
    for form in dict.fromkeys(options.format):
        url = join(output, f"{reader.name}.{SUFFIXES[form]}")
        if form == "mot":
            writers.append(MotWriter(url, ids))
        elif form == "parquet":
            writers.append(ParquetWriter(url, names, ids))
        else:
            writers.append(CocoWriter(url, reader.name, names, ids, table, bare=form == "tao"))
    if options.save_video:
        writers.append(VideoWriter(join(output, f"{reader.name}.mp4"), reader.fps, config.draw))
    return writers


def summarise(reader: FrameReader, outcome: Outcome) -> int:
    """Print what came out; returns the exit code."""
    say(
        f"{reader.name}: {outcome.num_frames:,} frames, {outcome.num_detections:,} detections, {outcome.num_tracked:,} "
        f"of them in {outcome.num_tracks:,} tracks"
    )
    seconds = sum(outcome.times.seconds.values())
    say(f"{outcome.num_frames / max(seconds, 1e-9):,.1f} frames/s ({outcome.times.rates()})")
    for url in outcome.written:
        say(f"wrote {redact(url)}")
    if not outcome.problems:
        return 0
    for problem in outcome.problems[:3]:
        print(f"warning: {scrub(problem)}", file=sys.stderr)
    more = f", and {len(outcome.problems) - 3} more like these" if len(outcome.problems) > 3 else ""
    missing = reader.num_frames - outcome.num_frames
    print(
        f"warning: {missing:,} of {reader.num_frames:,} frames could not be read{more}; the tracks are of the others",
        file=sys.stderr,
    )
    return INCOMPLETE


def say(line: str) -> None:
    """One line for people, without credentials."""
    print(scrub(line), flush=True)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit status: 0 fine, 2 a mistake of the user, a file or the storage, 3 not all frames could be read."""
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return run(options)
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {scrub(str(error))}", file=sys.stderr)
        return USER_ERROR


if __name__ == "__main__":
    sys.exit(main())
