"""The five stages: what each prepares, which jobs it runs with which arguments, and what it leaves behind."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from trackmill.pipeline.console.output import say
from trackmill.pipeline.demo.report import write_report
from trackmill.pipeline.demo.sequences import write_camera_sequence, write_video_sequence
from trackmill.pipeline.demo.settings import DemoSettings
from trackmill.pipeline.sources.packaged import packaged_media
from trackmill.pipeline.storage.files import basename, canonical, exists, join, read_bytes
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.pipeline.training.telemetry.curves import write_curves
from trackmill.schemas.config import ConfigError, digest

VARIANT, UNTRAINED = "masa_lite0", "imagenet"
VIDEO = "bikes"
MODELS = ("untrained", "trained")


@dataclass(frozen=True, slots=True)
class Command:
    """A job, such as `track` for jobs/track.py, and its arguments."""

    job: str
    arguments: tuple[str, ...]

    def line(self) -> str:
        """As one would type it."""
        return shlex.join(["python", f"jobs/{self.job}.py", *self.arguments])


@dataclass(frozen=True, slots=True)
class Demo:
    """One demonstration: where it writes, and its settings."""

    root: str
    settings: DemoSettings

    def at(self, *parts: str) -> str:
        """A path under the root."""
        return join(self.root, *parts)

    @property
    def weights(self) -> str:
        """What training leaves."""
        return self.at("run", "final", "model.safetensors")

    def sequence(self, photograph: str) -> str:
        """Folder of a camera sequence."""
        return self.at("camera", photograph)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One of them.

    Args:
        name: what `--stage` calls it.
        summary: what it does, for people.
        prepare: what comes before its jobs.
        commands: its jobs.
        finish: what comes after them.
        result: what is there when it is done.
    """

    name: str
    summary: str
    prepare: Callable[[Demo], None]
    commands: Callable[[Demo], list[Command]]
    finish: Callable[[Demo], None]
    result: Callable[[Demo], str]


def stage_key(demo: Demo, number: int) -> str:
    """Changes with everything that a stage's result depends on but the code: its commands and those before it."""
    lines = [command.line() for stage in STAGES[: number + 1] for command in stage.commands(demo)]
    return digest({"commands": lines, "settings": demo.settings.model_dump(mode="json")})


def is_done(demo: Demo, number: int) -> bool:
    """Whether a stage has been done with these settings and its result is still there."""
    stamp = read_stamp(demo, STAGES[number].name)
    return stamp.get("key") == stage_key(demo, number) and exists(STAGES[number].result(demo))


def read_stamp(demo: Demo, name: str) -> dict[str, object]:
    """What the last run of a stage noted: `key`, `seconds`, `commands`; empty where it has not been run."""
    url = demo.at("stages", f"{name}.json")
    return dict(orjson.loads(read_bytes(url))) if exists(url) else {}


def run_stage(demo: Demo, number: int, run: Callable[[Command], None]) -> float:
    """Do a stage, whatever is there already, and note that it is done.

    Args:
        demo: where and how.
        number: in `STAGES`.
        run: runs a job, and raises where it fails.

    Returns:
        Seconds that it took.

    Raises:
        ConfigError: what an earlier stage makes is missing; says how to get it.
        ValueError, OSError, ImportError: see the stage's parts.
    """
    stage = STAGES[number]
    for before in STAGES[:number]:
        if not exists(before.result(demo)):
            raise ConfigError(f"stage {stage.name} needs what stage {before.name} makes: run that first")
    begin = time.monotonic()
    commands = stage.commands(demo)
    stage.prepare(demo)
    for command in commands:
        run(command)
    stage.finish(demo)
    seconds = time.monotonic() - begin
    stamp = {
        "key": stage_key(demo, number),
        "seconds": round(seconds, 1),
        "commands": [command.line() for command in commands],
    }
    publish_bytes(demo.at("stages", f"{stage.name}.json"), orjson.dumps(stamp, option=orjson.OPT_INDENT_2))
    return seconds


def _nothing(demo: Demo) -> None:
    pass


def _lay_out_media(demo: Demo) -> None:
    """Copies, so that the commands name short paths and one can look at what went in."""
    known = {basename(path).rpartition(".")[0]: path for path in packaged_media()}
    for name in (*demo.settings.photographs, VIDEO):
        if name not in known:
            raise ConfigError(f"{name!r} is none of the packaged media: {', '.join(known)}")
    for name, path in known.items():
        folder = "held_out" if name in demo.settings.photographs else "mined"
        publish_bytes(demo.at("media", folder, basename(path)), read_bytes(canonical(path)))


def _mine(demo: Demo) -> list[Command]:
    mined, settings = demo.at("mined"), demo.settings
    mine = ["--input", demo.at("media", "mined"), "--output", mined, "--executor", settings.executor]
    for change in settings.mine:
        mine += ["--set", change]
    return [
        Command("mine_proposals", tuple(mine)),
        Command("inspect_shards", (mined, "--html", demo.at("contact_sheet.html"))),
    ]


def _train(demo: Demo) -> list[Command]:
    settings = demo.settings
    changes = [f"schedule.steps={settings.steps}", f"schedule.warmup_steps={min(10, settings.steps // 4)}"]
    changes += ["telemetry.every=1", *settings.train]
    arguments = ["--recipe", VARIANT, "--data", demo.at("mined"), "--output", demo.at("run"), "--launcher", "local"]
    arguments += ["--seed", str(settings.seed)]
    for change in changes:
        arguments += ["--set", change]
    return [Command("train", tuple(arguments))]


def _draw_curves(demo: Demo) -> None:
    write_curves(demo.at("run"), demo.at("curves.html"))


def _write_sequences(demo: Demo) -> None:
    media = {basename(path).rpartition(".")[0]: basename(path) for path in packaged_media()}
    for name in demo.settings.photographs:
        picture = demo.at("media", "held_out", media[name])
        count = write_camera_sequence(picture, demo.sequence(name), demo.settings.frames, demo.settings.seed)
        say(f"wrote {demo.sequence(name)}: {demo.settings.frames} frames, {count} objects")
    video, folder = demo.at("media", "mined", media[VIDEO]), demo.at("video", VIDEO)
    frames = write_video_sequence(video, folder, demo.settings.video_frames)
    say(f"wrote {folder}: {frames} frames")


def _track(demo: Demo) -> list[Command]:
    commands = []
    for model in MODELS:
        for name in demo.settings.photographs:
            # No gate on distances, so appearance alone decides; and a memory that outlasts a look to the other side.
            rules = ["--set", "tracker.max_distance=-1", "--set", "tracker.memo_tracklet_frames=60"]
            commands.append(_track_one(demo, model, demo.sequence(name), demo.at("tracks", model), rules))
    commands.append(_track_one(demo, "trained", demo.at("video", VIDEO), demo.at("video_tracks"), []))
    return commands


def _track_one(demo: Demo, model: str, sequence: str, output: str, rules: list[str]) -> Command:
    arguments = ["--video", sequence, "--detections", join(sequence, "det", "det.txt"), "--model", VARIANT]
    arguments += ["--weights", demo.weights if model == "trained" else UNTRAINED, "--output", output, "--save-video"]
    return Command("track", (*arguments, "--set", f"size.long_side={demo.settings.long_side}", *rules))


def _evaluate(demo: Demo) -> list[Command]:
    truths = demo.at("camera")
    commands = []
    for model in MODELS:
        page, scores = demo.at("scores", f"{model}.html"), demo.at("scores", f"{model}.json")
        # `--out`, the older name of --output, since what is done already is recognised by the text of its commands.
        arguments = ("--gt", truths, "--results", demo.at("tracks", model), "--out", scores, "--html", page)
        commands.append(Command("evaluate", ("--benchmark", "mot15", *arguments, "--pictures", truths)))
    linking = ["--benchmark", "association", "--gt", truths, "--long-side", str(demo.settings.long_side)]
    linking += ["--embeddings", VARIANT, "--weights", demo.weights, "--against", VARIANT]
    linking += ["--against-weights", UNTRAINED, "--out", demo.at("scores", "association.json")]
    return [*commands, Command("evaluate", tuple(linking))]


def _report(demo: Demo) -> None:
    stamps = {stage.name: read_stamp(demo, stage.name) for stage in STAGES[:-1]}
    stages = [(stage.name, stage.summary, stamps[stage.name]) for stage in STAGES[:-1]]
    size = write_report(demo.root, demo.settings, stages)
    say(f"report: {demo.at('report.html')} ({size / 1e6:.1f} MB), open it in a browser")


STAGES: tuple[Stage, ...] = (
    Stage(
        name="mine",
        summary="Graph proposals on photographs and clips that ship inside packages, into shards.",
        prepare=_lay_out_media,
        commands=_mine,
        finish=_nothing,
        result=lambda demo: demo.at("contact_sheet.html"),
    ),
    Stage(
        name="train",
        summary="The track head of masa_lite0 on two views of each mined picture; no label is used.",
        prepare=_nothing,
        commands=_train,
        finish=_draw_curves,
        result=lambda demo: demo.at("curves.html"),
    ),
    Stage(
        name="track",
        summary="Photographs kept out of mining, seen by a moving camera, with the untrained and the trained head; and "
        "a real video.",
        prepare=_write_sequences,
        commands=_track,
        finish=_nothing,
        result=lambda demo: demo.at("video_tracks", f"{VIDEO}.mp4"),
    ),
    Stage(
        name="evaluate",
        summary="Both against the camera's exact boxes, and their embeddings against each other.",
        prepare=_nothing,
        commands=_evaluate,
        finish=_nothing,
        result=lambda demo: demo.at("scores", "association.json"),
    ),
    Stage(
        name="report",
        summary="This page.",
        prepare=_nothing,
        commands=lambda demo: [],
        finish=_report,
        result=lambda demo: demo.at("report.html"),
    ),
)
