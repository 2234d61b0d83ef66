"""The six stages: what each prepares, which jobs it runs with which arguments, and what it leaves behind."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import orjson

from trackmill.models.registry import DEFAULT_DETECTOR
from trackmill.models.weights.packaged_person import INSTALL, is_packaged
from trackmill.pipeline.console.output import say
from trackmill.pipeline.demo.chains import show_chains
from trackmill.pipeline.demo.report import write_report
from trackmill.pipeline.demo.sequences import write_camera_sequence, write_video_sequence
from trackmill.pipeline.demo.settings import DemoSettings
from trackmill.pipeline.sources.packaged import packaged_media
from trackmill.pipeline.storage.files import exists, read_bytes
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.pipeline.storage.urls import basename, canonical, join
from trackmill.pipeline.tracking.motion import MotionRule
from trackmill.pipeline.training.telemetry.curves import write_curves
from trackmill.schemas.config import ConfigError, digest
from trackmill.schemas.errors import MissingPackage

UNTRAINED = "imagenet"
VIDEO = "bikes"
PARTS, PEOPLE = "parts", "people"
"""Sidecars of chains: of the mined proposals, which are trained on, and of people, to look at."""

_NOT_IN_KEYS = {"recipe", "chains"}
"""Settings that commands name, and that there were none of when some people's stages were done."""
MODELS = ("untrained", "trained")
MOTION = "bytetrack"
"""Links people in the real video by where they go, for comparison."""

RULES = {
    "masa_lite0": ("--tracker", "tao", "--set", "tracker.max_distance=-1", "--set", "tracker.memo_tracklet_frames=60"),
    "scaletrack_lite0": ("--tracker", "scaletrack", "--set", "tracker.memory_frames=60"),
}
"""Of each recipe's model its own rule: appearance alone, without a gate on distances, and with a memory that outlasts a
look to the other side."""


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
        return join(self.run, "final", "model.safetensors")

    @property
    def run(self) -> str:
        """Folder of the training run: of each recipe its own, since a run goes on where it stopped."""
        return self.at(f"run_{self.settings.recipe}")

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
        typical_s: seconds that it takes on two CPU cores, for the estimate of what is left.
    """

    name: str
    summary: str
    prepare: Callable[[Demo], None]
    commands: Callable[[Demo], list[Command]]
    finish: Callable[[Demo], None]
    result: Callable[[Demo], str]
    typical_s: float


def stage_key(demo: Demo, number: int) -> str:
    """Changes with everything that a stage's result depends on but the code: its commands and those before it."""
    lines = [command.line() for stage in STAGES[: number + 1] for command in stage.commands(demo)]
    return digest({"commands": lines, "settings": demo.settings.model_dump(mode="json", exclude=_NOT_IN_KEYS)})


def is_done(demo: Demo, number: int) -> bool:
    """Whether a stage has been done with these settings and its result is still there."""
    stamp = read_stamp(demo, STAGES[number].name)
    return stamp.get("key") == stage_key(demo, number) and exists(STAGES[number].result(demo))


def seconds_left(demo: Demo, number: int, pace: float) -> float:
    """What the stages after this one may take.

    Args:
        demo: where and how.
        number: of the stage that was done last.
        pace: seconds that went by for each typical one so far.
    """
    later = range(number + 1, len(STAGES))
    return pace * sum(STAGES[each].typical_s for each in later if not is_done(demo, each))


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
        MissingPackage: the packaged person detector, or the rules by motion, are not installed; says what to type.
        ValueError, OSError, ImportError: see the stage's parts.
    """
    stage = STAGES[number]
    for before in STAGES[:number]:
        if not exists(before.result(demo)):
            raise ConfigError(f"stage {stage.name} needs what stage {before.name} makes: run that first")
    if not is_packaged():
        raise MissingPackage(f"the demonstration finds people with {DEFAULT_DETECTOR}: {INSTALL}")
    MotionRule(MOTION)
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


def _chains(demo: Demo) -> list[Command]:
    """Proposals are there in stored frames alone; people are looked for in the frames in between too."""
    mine: tuple[str, ...] = ("--data", demo.at("mined"), "--executor", "inline")
    mine += tuple(word for change in demo.settings.chains for word in ("--set", change))
    parts = ("--name", PARTS, "--boxes", "proposals", "--min-score", "0", "--min-length", "3")
    people = ("--name", PEOPLE, "--detector", DEFAULT_DETECTOR)
    return [Command("mine_chains", (*mine, *parts)), Command("mine_chains", (*mine, *people))]


def _note_chains(demo: Demo) -> None:
    counts = {name: asdict(show_chains(demo.at("mined"), name, 0)[0]) for name in (PARTS, PEOPLE)}
    publish_bytes(demo.at("chains.json"), orjson.dumps(counts, option=orjson.OPT_INDENT_2))


def _train(demo: Demo) -> list[Command]:
    settings = demo.settings
    changes = [f"schedule.steps={settings.steps}", f"schedule.warmup_steps={min(10, settings.steps // 4)}"]
    changes += ["telemetry.every=1", f"objects.chains={PARTS}", *settings.train]
    arguments = ["--recipe", settings.recipe, "--data", demo.at("mined"), "--output", demo.run, "--launcher", "local"]
    arguments += ["--seed", str(settings.seed)]
    for change in changes:
        arguments += ["--set", change]
    return [Command("train", tuple(arguments))]


def _draw_curves(demo: Demo) -> None:
    write_curves(demo.run, demo.at("curves.html"))


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
            given = ["--detections", join(demo.sequence(name), "det", "det.txt"), *RULES[demo.settings.recipe]]
            commands.append(_track_one(demo, model, demo.sequence(name), demo.at("tracks", model), given))
    return [*commands, *_track_video(demo)]


def _track_video(demo: Demo) -> list[Command]:
    """By appearance, and by motion alone."""
    video = demo.at("video", VIDEO)
    found = ["--detections", DEFAULT_DETECTOR]
    by_motion = ("--video", video, *found, "--tracker", MOTION, "--output", demo.at("video_tracks", MOTION))
    return [
        _track_one(demo, "trained", video, demo.at("video_tracks", "trained"), [*found, *RULES[demo.settings.recipe]]),
        Command("track", (*by_motion, "--save-video")),
    ]


def _track_one(demo: Demo, model: str, sequence: str, output: str, rules: list[str]) -> Command:
    arguments = ["--video", sequence, "--model", demo.settings.recipe]
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
    linking += ["--embeddings", demo.settings.recipe, "--weights", demo.weights, "--against", demo.settings.recipe]
    linking += ["--against-weights", UNTRAINED, "--out", demo.at("scores", "association.json")]
    commands.append(Command("evaluate", tuple(linking)))
    for rule in ("trained", MOTION):
        page, scores = demo.at("scores", f"video_{rule}.html"), demo.at("scores", f"video_{rule}.json")
        video, results = demo.at("video"), demo.at("video_tracks", rule)
        files = ("--gt", video, "--results", results, "--output", scores, "--html", page, "--pictures", video)
        commands.append(Command("evaluate", ("--benchmark", "mot15", *files)))
    return commands


def _report(demo: Demo) -> None:
    stamps = {stage.name: read_stamp(demo, stage.name) for stage in STAGES[:-1]}
    stages = [(stage.name, stage.summary, stamps[stage.name]) for stage in STAGES[:-1]]
    size = write_report(demo.root, demo.run, demo.settings, stages)
    say(f"report: {demo.at('report.html')} ({size / 1e6:.1f} MB), open it in a browser")


STAGES: tuple[Stage, ...] = (
    Stage(
        name="mine",
        summary="Graph proposals on photographs and clips that ship inside packages, into shards.",
        prepare=_lay_out_media,
        commands=_mine,
        finish=_nothing,
        result=lambda demo: demo.at("contact_sheet.html"),
        typical_s=30,
    ),
    Stage(
        name="chains",
        summary="Boxes that follow each other in the clips, never over a cut: mined regions, and people whom a "
        "packaged detector finds.",
        prepare=_nothing,
        commands=_chains,
        finish=_note_chains,
        result=lambda demo: demo.at("chains.json"),
        typical_s=60,
    ),
    Stage(
        name="train",
        summary="A small association model on those chains; no label is used.",
        prepare=_nothing,
        commands=_train,
        finish=_draw_curves,
        result=lambda demo: demo.at("curves.html"),
        typical_s=100,
    ),
    Stage(
        name="track",
        summary="People in a real video, whom a packaged detector finds, by appearance and by motion alone; and "
        "photographs kept out of mining, seen by a moving camera, with the untrained and the trained model.",
        prepare=_write_sequences,
        commands=_track,
        finish=_nothing,
        result=lambda demo: demo.at("video_tracks", MOTION, f"{VIDEO}.mp4"),
        typical_s=115,
    ),
    Stage(
        name="evaluate",
        summary="The people against what was annotated by hand; the camera's views against exact boxes, and "
        "embeddings against each other.",
        prepare=_nothing,
        commands=_evaluate,
        finish=_nothing,
        result=lambda demo: demo.at("scores", f"video_{MOTION}.json"),
        typical_s=40,
    ),
    Stage(
        name="report",
        summary="This page.",
        prepare=_nothing,
        commands=lambda demo: [],
        finish=_report,
        result=lambda demo: demo.at("report.html"),
        typical_s=5,
    ),
)
