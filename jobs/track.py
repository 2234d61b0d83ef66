"""Track anything: `python jobs/track.py --video URL --weights URL --output DIR [--detections WHAT]`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

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
from trackmill.pipeline.storage.urls import canonical, join
from trackmill.pipeline.tracking.excerpt import check_order, keep_excerpt, moment
from trackmill.pipeline.tracking.motion import MOTION_RULES, MotionTracking
from trackmill.pipeline.tracking.settings import PRESETS, TrackConfig
from trackmill.schemas.config import build
from trackmill.schemas.errors import InputError

if TYPE_CHECKING:
    from trackmill.pipeline.tracking.base import VideoModel
    from trackmill.pipeline.tracking.detection_files import FileDetections
    from trackmill.pipeline.tracking.frame_reader import FrameReader
    from trackmill.pipeline.tracking.image_table import ImageTable
    from trackmill.pipeline.tracking.run import TrackingResult, TrackingStopped
    from trackmill.pipeline.tracking.videos import Video
    from trackmill.pipeline.tracking.writers import TrackSink

T = TypeVar("T")

SUFFIXES = {"mot": "txt", "coco": "json", "tao": "json", "parquet": "parquet"}


def add_options(p: JobParser) -> None:
    """What is tracked, with what, and what is written."""
    add = p.option
    videos = (
        "a video, a folder of pictures, a MOTChallenge sequence, a webcam (0), a stream (rtsp://...), or - for a pipe; "
        "several, and quoted globs: one result each"
    )
    add("--video", required=True, nargs="+", metavar="URL", help=videos)
    alone = [name for name, entry in MODELS.items() if entry.end_to_end]
    sources = (
        "a file (MOTChallenge .txt, COCO .json, .parquet; det/{name}.txt is one for each video), a folder of YOLO "
        "labels, "
        f"{', '.join(detector_forms())}, or your own "
        "my_package.my_module:Class; masa is the model's own proposal head, detic alone that inside masa_detic, "
        f"or on the maps of scaletrack_unified_detic; none for {', '.join(alone)}, which find people themselves "
        f"(default {DEFAULT_DETECTOR}, people, where its extra is installed)"
    )
    add("--detections", metavar="WHAT", help=sources)
    add("--output", required=True, metavar="FOLDER", help="gets NAME.txt, NAME.json, NAME.parquet, NAME.mp4")
    models = f"{', '.join(MODELS)}, or your own my_package.my_module:Class (default masa_r50)"
    add("--model", type=OneOf(MODELS, is_outside), metavar="NAME", help=models)
    add("--weights", metavar="URL", help="its checkpoint, official .pth or our .safetensors; imagenet for masa_lite0")
    rules = (
        f"rule and official settings: {', '.join(PRESETS)}, by appearance (default: the one that the model was made "
        f"for); {', '.join(MOTION_RULES)}, by motion: no model is loaded (extra motion)"
    )
    add("--tracker", type=OneOf([*PRESETS, *MOTION_RULES]), metavar="NAME", help=rules)
    forms = f"what is written: {', '.join(SUFFIXES)} (default mot)"
    add("--format", nargs="+", type=OneOf(SUFFIXES), default=["mot"], metavar="NAME", help=forms)
    add(
        "--offline",
        action="store_true",
        help="when the video has ended, join what looks alike before anything is written; settings: offline.*",
    )
    add("--save-video", action="store_true", help="write an mp4 with boxes, masks, ids and trails")
    add("--show", action="store_true", help="the same in a window, while it is tracked; q stops")
    add("--labels", key="draw.labels")
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
    add("--name", metavar="NAME", help="of the sequence, where it is one; default: of the file or folder")
    part = "a frame number as in the results (250), or seconds (12.5s)"
    add("--start", type=moment, metavar="WHEN", help=f"first frame that is tracked: {part}; numbers stay as they are")
    add("--end", type=moment, metavar="WHEN", help="last frame that is tracked; with seconds, the last one before them")
    at_once = "frames that the model gets at once (default 8; of a stream 1, so that no frame waits for others)"
    add("--batch", type=positive, metavar="N", help=at_once)
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
    if options.labels and not (options.save_video or options.show):
        raise InputError("--labels: stand in the video; give --save-video or --show too")
    if options.offline and options.tracker in MOTION_RULES:
        raise InputError(
            f"--offline joins what looks alike, and --tracker {options.tracker} looks at nothing: leave --offline out, "
            f"or take a rule by appearance ({', '.join(PRESETS)})"
        )

    from trackmill.pipeline.storage.output_folder import check_output_folder
    from trackmill.pipeline.storage.scratch import sweep_scratch
    from trackmill.pipeline.tracking.detections import check_detections_of_several
    from trackmill.pipeline.tracking.videos import choose_videos

    if options.show:
        from trackmill.pipeline.tracking.window import check_screen

        check_screen()
    check_output_folder(output, (), "--output")
    videos = choose_videos(options.video, options.name)
    several = len(videos) > 1
    if several:
        check_detections_of_several(options.detections)
        names = [name for video in videos for name in output_names(options, video.name)]
        check_output_folder(output, names, "--output")
    model: VideoModel | None = None
    codes: list[ExitCode] = []
    for place, video in enumerate(videos, 1):
        with contextlib.ExitStack() as opened:
            ready = _unless_bad(video, several, partial(prepare, options, config, output, video, opened))
            if ready is None:
                codes.append(ExitCode.INCOMPLETE)
                continue
            if model is None:  # once, for all videos
                model = make_model(options, config, ready.from_file)
                sweep_scratch(output)
            elif ready.from_file is not None:
                model = with_other_detections(options, config, model, ready.from_file)
            which = f"{ready.reader.name} ({place} of {len(videos)})" if several else ""
            tracked = _unless_bad(video, several, partial(track_one, options, config, output, ready, model, which))
            codes.append(ExitCode.INCOMPLETE if tracked is None else tracked)
    if model is None:
        raise InputError(f"none of the {len(videos)} videos can be tracked")
    return max(codes)


@dataclass(frozen=True)
class Ready:
    """A video that is open, and what was read for it."""

    video: Video
    reader: FrameReader
    from_file: FileDetections | None
    table: ImageTable | None


def _unless_bad(video: Video, several: bool, action: Callable[[], T]) -> T | None:
    """What an action gives. Of several videos a bad one is told, and gives None: the others go on."""
    try:
        return action()
    except (InputError, FileNotFoundError) as error:
        if not several:
            raise
        warn(f"{redact(video.url)} is left out: {error}")
        return None


def prepare(options: Options, config: TrackConfig, output: str, video: Video, opened: contextlib.ExitStack) -> Ready:
    """Open a video and read what goes with it, before anything is loaded.

    Raises:
        InputError, OSError: something of it cannot be used, or read.
    """
    from trackmill.pipeline.storage.output_folder import check_output_folder
    from trackmill.pipeline.tracking.detections import read_file_detections
    from trackmill.pipeline.tracking.frames import open_frames
    from trackmill.pipeline.tracking.image_table import read_image_table
    from trackmill.pipeline.tracking.streams import StreamFrames, is_stream

    if is_stream(video.url):
        if options.offline:
            raise InputError(f"--offline: reads the video twice, and {redact(video.url)} comes only once")
        live: FrameReader = StreamFrames(video.url, config.read.max_pixels)
    else:
        live = open_frames(video.url, config.read)
    reader = opened.enter_context(contextlib.closing(live))
    reader.name = video.name or reader.name
    if "/" in reader.name or reader.name in ("", ".", ".."):
        raise InputError(f"--name {reader.name!r}: files are called by it, so it holds no slash")
    check_output_folder(output, output_names(options, reader.name), "--output")
    from_file = read_file_detections(options.detections, reader, options.images, options.min_score)
    table = read_image_table(options.images, reader.name, reader.file_names) if options.images else None
    keep_excerpt(reader, options.start, options.end)
    return Ready(video, reader, from_file, table)


def make_model(options: Options, config: TrackConfig, from_file: FileDetections | None) -> VideoModel:
    """What tracks, and notes about what it is."""
    from trackmill.pipeline.tracking.build import DEFAULT_MODEL, make_video_model
    from trackmill.pipeline.tracking.two_stage import TwoStage

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
    if options.detections is None and isinstance(model, TwoStage | MotionTracking):
        note(f"no --detections, so people are found, by {DEFAULT_DETECTOR} ({DETECTORS[DEFAULT_DETECTOR].summary})")
    named = options.model or DEFAULT_MODEL
    if options.weights is None and named in MODELS and not isinstance(model, MotionTracking):
        chance = "identities are" if isinstance(model, TwoStage) else "what it finds, and identities, are"
        note(f"no --weights, so the model's are random: {chance} by chance")
    return model


def with_other_detections(
    options: Options, config: TrackConfig, model: VideoModel, from_file: FileDetections
) -> VideoModel:
    """The model that is there already, behind the file of the next video."""
    from trackmill.pipeline.tracking.build import with_file_detections

    return with_file_detections(model, from_file, classes=options.classes, min_score=options.min_score, config=config)


def track_one(
    options: Options, config: TrackConfig, output: str, ready: Ready, model: VideoModel, which: str
) -> ExitCode:
    """Track a video, write its results, and say what came out.

    Args:
        which: one of several, for the progress line; "" of one.
    """
    from trackmill.pipeline.tracking.frames import open_frames
    from trackmill.pipeline.tracking.offline import track_offline
    from trackmill.pipeline.tracking.run import TrackingStopped, track_video
    from trackmill.pipeline.tracking.streams import is_stream
    from trackmill.pipeline.tracking.timing import StageTimes, TrackingProgress

    def again() -> FrameReader:
        reopened = open_frames(ready.video.url, config.read)
        reopened.read_as(reader)
        return reopened

    reader, from_file = ready.reader, ready.from_file
    batch = options.batch or (1 if is_stream(ready.video.url) else 8)
    times = StageTimes()
    progress = TrackingProgress(reader.num_frames, times, video=which)
    writers = make_writers(options, output, reader, model, ready.table, config)
    try:
        if options.offline:
            result = track_offline(
                reader,
                again,
                model,
                writers,
                config.offline,
                batch_size=batch,
                times=times,
                progress=progress,
            )
        else:
            result = track_video(reader, model, writers, batch_size=batch, times=times, progress=progress)
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
        if left := max(0, wanted - from_file.num_given):
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
) -> list[TrackSink]:
    """One for each file that is asked for, and the window."""
    from trackmill.pipeline.tracking.video_writer import VideoWriter
    from trackmill.pipeline.tracking.window import Window
    from trackmill.pipeline.tracking.writers import CocoWriter, MotWriter, ParquetWriter

    names, ids = model.names, model.category_ids
    writers: list[TrackSink] = []
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
        if options.show:
            writers.append(Window(reader.name, config.draw))
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
    extra="masa",
)
main = JOB.main

if __name__ == "__main__":
    leave(main())
