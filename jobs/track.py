"""Track anything: `python jobs/track.py --video URL --weights URL --output DIR [--detections WHAT]`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, whatever is installed

from trackmill.models.outside import is_outside
from trackmill.models.registry import DEFAULT_DETECTOR, DETECTORS, MODELS, detector_forms
from trackmill.pipeline.console.choices import OneOf
from trackmill.pipeline.console.exit_codes import ExitCode
from trackmill.pipeline.console.job import Job
from trackmill.pipeline.console.leaving import leave
from trackmill.pipeline.console.options import JobParser, Options, positive
from trackmill.pipeline.console.output import note, say, warn
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import canonical, join
from trackmill.pipeline.tracking.excerpt import check_order, keep_excerpt, moment
from trackmill.pipeline.tracking.settings import PRESETS, TrackConfig
from trackmill.schemas.config import build
from trackmill.schemas.errors import InputError

if TYPE_CHECKING:
    from trackmill.pipeline.tracking.base import VideoModel
    from trackmill.pipeline.tracking.frames import FrameReader
    from trackmill.pipeline.tracking.image_table import ImageTable
    from trackmill.pipeline.tracking.run import TrackingResult, TrackingStopped
    from trackmill.pipeline.tracking.writers import TrackWriter

SUFFIXES = {"mot": "txt", "coco": "json", "tao": "json", "parquet": "parquet"}


def add_options(p: JobParser) -> None:
    """What is tracked, with what, and what is written."""
    add = p.option
    add("--video", required=True, metavar="URL", help="a video, a folder of pictures, or a MOTChallenge sequence")
    alone = [name for name, entry in MODELS.items() if entry.end_to_end]
    sources = (
        f"a file (MOTChallenge .txt, COCO .json, .parquet), {', '.join(detector_forms())}, or your own "
        "my_package.my_module:Class; masa is the model's own proposal head, detic alone that inside masa_detic, "
        f"or on the maps of scaletrack_unified_detic; none for {', '.join(alone)}, which find people themselves "
        f"(default {DEFAULT_DETECTOR}, people, where its extra is installed)"
    )
    add("--detections", metavar="WHAT", help=sources)
    add("--output", required=True, metavar="FOLDER", help="gets NAME.txt, NAME.json, NAME.parquet, NAME.mp4")
    models = f"{', '.join(MODELS)}, or your own my_package.my_module:Class (default masa_r50)"
    add("--model", type=OneOf(MODELS, is_outside), default="masa_r50", metavar="NAME", help=models)
    add("--weights", metavar="URL", help="its checkpoint, official .pth or our .safetensors; imagenet for masa_lite0")
    rules = f"rule and official settings: {', '.join(PRESETS)} (default: the one that the model was made for)"
    add("--tracker", type=OneOf(PRESETS), metavar="NAME", help=rules)
    forms = f"what is written: {', '.join(SUFFIXES)} (default mot)"
    add("--format", nargs="+", type=OneOf(SUFFIXES), default=["mot"], metavar="NAME", help=forms)
    add(
        "--offline",
        action="store_true",
        help="when the video has ended, join what looks alike before anything is written; settings: offline.*",
    )
    add("--save-video", action="store_true", help="write an mp4 with boxes, masks, ids and trails")
    add("--masks", action="store_true", help="segment what is tracked with SAM's decoder (masa_sam_*)")
    add("--min-score", type=float, metavar="X", help="leave out detections below it; default: as the detector says")
    wanted = "what to look for: person,dog, a file with a name a line, for detic also .npy, .npz or lvis; default: all"
    add("--classes", metavar="WHAT", help=wanted)
    add("--text-weights", metavar="URL", help="of CLIP ViT-B/32, which turns names of --classes into vectors for detic")
    add(
        "--detector-weights",
        metavar="URL",
        help="of the detector that --detections names; default: its published one; none: random",
    )
    add("--images", metavar="FILE", help="COCO-VID or TAO file that says which image id each frame has")
    add("--name", metavar="NAME", help="of the sequence; default: of the file or folder")
    part = "a frame number as in the results (250), or seconds (12.5s)"
    add("--start", type=moment, metavar="WHEN", help=f"first frame that is tracked: {part}; numbers stay as they are")
    add("--end", type=moment, metavar="WHEN", help="last frame that is tracked; with seconds, the last one before them")
    add("--batch", type=positive, default=8, metavar="N", help="frames that the model gets at once (default 8)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default auto: a GPU where there is one)")


def settings(options: Options) -> TrackConfig:
    """Of a command line.

    Raises:
        ConfigError: an unknown key, or a value that cannot be.
    """
    return build(TrackConfig, options.values, redact(options.config) if options.config else "settings")


def run(options: Options) -> ExitCode:
    """Track, write, sum up."""
    config = settings(options)
    output = canonical(options.output)
    if "coco" in options.format and "tao" in options.format:
        raise InputError("--format: coco and tao both write NAME.json; choose one, or run twice")
    check_order(options.start, options.end)

    from trackmill.pipeline.storage.output_folder import check_output_folder
    from trackmill.pipeline.storage.scratch import sweep_scratch
    from trackmill.pipeline.tracking.build import make_video_model, read_file_detections
    from trackmill.pipeline.tracking.frames import open_frames
    from trackmill.pipeline.tracking.image_table import read_image_table
    from trackmill.pipeline.tracking.offline import track_offline
    from trackmill.pipeline.tracking.run import TrackingStopped, track_video
    from trackmill.pipeline.tracking.timing import StageTimes, TrackingProgress
    from trackmill.pipeline.tracking.two_stage import TwoStage

    check_output_folder(output, (), "--output")
    with contextlib.closing(open_frames(options.video, config.read)) as reader:
        reader.name = options.name or reader.name
        if "/" in reader.name or reader.name in ("", ".", ".."):
            raise InputError(f"--name {reader.name!r}: files are called by it, so it holds no slash")
        check_output_folder(output, output_names(options, reader.name), "--output")
        from_file = read_file_detections(options.detections, reader, options.images, options.min_score)
        table = read_image_table(options.images, reader.name, reader.file_names) if options.images else None
        keep_excerpt(reader, options.start, options.end)
        model = make_video_model(
            model=options.model,
            weights=options.weights,
            detections=options.detections if from_file is None else from_file,
            detector_weights=options.detector_weights,
            classes=options.classes,
            text_weights=options.text_weights,
            masks=options.masks,
            tracker=options.tracker,
            device=options.device,
            min_score=options.min_score,
            config=config,
        )
        if options.detections is None and isinstance(model, TwoStage):
            note(f"no --detections, so people are found, by {DEFAULT_DETECTOR} ({DETECTORS[DEFAULT_DETECTOR].summary})")
        if options.weights is None and options.model in MODELS:
            chance = "identities are" if isinstance(model, TwoStage) else "what it finds, and identities, are"
            note(f"no --weights, so the model's are random: {chance} by chance")
        sweep_scratch(output)
        times = StageTimes()
        progress = TrackingProgress(reader.num_frames, times)
        writers = make_writers(options, output, reader, model, table, config)
        try:
            if options.offline:
                result = track_offline(
                    reader,
                    lambda: open_frames(options.video, config.read),
                    model,
                    writers,
                    config.offline,
                    batch_size=options.batch,
                    times=times,
                    progress=progress,
                )
            else:
                result = track_video(reader, model, writers, batch_size=options.batch, times=times, progress=progress)
        except TrackingStopped as stopped:
            progress.close()
            note_partial(reader, stopped)
            raise
        finally:
            progress.close()
        if from_file is not None:
            # What lies outside of --start and --end was left out on purpose.
            whole = options.start is None and options.end is None
            wanted = len(from_file) if whole else from_file.num_between(reader.first_number, reader.last_number)
        if from_file is not None and wanted > from_file.num_given:
            left = wanted - from_file.num_given
            note(f"{left:,} detections in the file are of frames that were not read")
    return summarise(reader, result)


def output_names(options: Options, name: str) -> list[str]:
    """Files that will be written."""
    forms = dict.fromkeys(SUFFIXES[form] for form in options.format)
    return [f"{name}.{suffix}" for suffix in (*forms, *(["mp4"] if options.save_video else []))]


def make_writers(
    options: Options,
    output: str,
    reader: FrameReader,
    model: VideoModel,
    table: ImageTable | None,
    config: TrackConfig,
) -> list[TrackWriter]:
    """One for each file that is asked for."""
    from trackmill.pipeline.tracking.video_writer import VideoWriter
    from trackmill.pipeline.tracking.writers import CocoWriter, MotWriter, ParquetWriter

    names, ids = model.names, model.category_ids
    writers: list[TrackWriter] = []
    try:
        for form in dict.fromkeys(options.format):
            url = join(output, f"{reader.name}.{SUFFIXES[form]}")
            if form == "mot":
                writers.append(MotWriter(url, ids))
            elif form == "parquet":
                writers.append(ParquetWriter(url, names, ids))
            else:
                writers.append(CocoWriter(url, reader.name, names, ids, table, bare=form == "tao"))
        if options.save_video:
            writers.append(VideoWriter(join(output, f"{reader.name}.mp4"), reader.fps, config.draw, reader.begin_s))
    except BaseException:
        for writer in writers:
            writer.abandon()
        raise
    return writers


def note_partial(reader: FrameReader, stopped: TrackingStopped) -> None:
    """Say what a run that was stopped leaves."""
    if stopped.kept:
        of_all = f" of {reader.num_frames:,}" if reader.num_frames else ""
        files = ", ".join(redact(url) for url in stopped.kept)
        note(f"tracked {stopped.num_frames:,}{of_all} frames; their tracks are in {files}")


def summarise(reader: FrameReader, result: TrackingResult) -> ExitCode:
    """Print what came out."""
    say(
        f"{reader.name}: {result.num_frames:,} frames, {result.num_detections:,} detections, {result.num_tracked:,} "
        f"of them in {result.num_tracks:,} tracks"
    )
    seconds = sum(result.times.seconds.values())
    say(f"{result.num_frames / max(seconds, 1e-9):,.1f} frames/s ({result.times.rates()})")
    for url in result.written:
        say(f"wrote {redact(url)}")
    if not result.problems:
        return ExitCode.FINE
    for problem in result.problems[:3]:
        warn(problem)
    more = f", and {len(result.problems) - 3} more like these" if len(result.problems) > 3 else ""
    missing = reader.num_frames - result.num_frames
    warn(f"{missing:,} of {reader.num_frames:,} frames could not be read{more}; the tracks are of the others")
    return ExitCode.INCOMPLETE


JOB = Job(
    name="track",
    description="Track objects in a video, with any detector's boxes or the model's own.",
    add_options=add_options,
    run=run,
    settings="trackmill.pipeline.tracking.settings:TrackConfig",
    resolve=settings,
    example="tracker.match_score_thr=0.6",
    goes_on="run it again for all frames",
)
main = JOB.main

if __name__ == "__main__":
    leave(main())
