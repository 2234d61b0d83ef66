"""The command `trackmill`: `trackmill mine ...` is the same as `python jobs/mine_proposals.py ...`, and so on."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import trackmill
from trackmill.pipeline.console.encoding import use_utf8
from trackmill.pipeline.console.exit_codes import ExitCode
from trackmill.pipeline.console.failures import report_failure
from trackmill.pipeline.console.leaving import leave
from trackmill.pipeline.console.output import clean, complain, discard_stdout, printable_streams
from trackmill.schemas.names import nearest

COMMANDS = {
    "mine": ("mine_proposals", "mine pictures and videos into shards"),
    "status": ("status", "say how far a mining output, a sidecar or a training run is"),
    "inspect": ("inspect_shards", "look at mined shards, or check every byte"),
    "filter": ("filter_data", "keep some samples of a data set, without decoding"),
    "merge": ("merge_data", "make one data set out of several, without decoding"),
    "split": ("split_data", "split a data set into train and val, without decoding"),
    "export-data": ("export_data", "write a data set as COCO, YOLO, MOT, CVAT, ..."),
    "view": ("view", "look at a data set, or at tracks, in a browser"),
    "push": ("push_data", "push a data set onto Hugging Face's Hub"),
    "sidecar": ("make_sidecar", "make a table beside mined shards: detections, chains, ..."),
    "negatives": ("mine_negatives", "mine pseudo-negatives over shards that exist"),
    "mine-chains": ("mine_chains", "mine chains, pseudo-masklets of unlabelled video, over shards that exist"),
    "audit": ("audit_negatives", "look at pseudo-negatives before they are trained on"),
    "train": ("train", "train a model from shards"),
    "curves": ("draw_curves", "draw the curves of training runs"),
    "track": ("track", "track objects in a video"),
    "evaluate": ("evaluate", "compare tracks with ground truth"),
    "export": ("export", "write a trained model as safetensors and ONNX"),
    "vocabulary": ("make_vocabulary", "turn names of classes into vectors for open-vocabulary detectors"),
    "convert": ("convert", "turn an official checkpoint into safetensors"),
    "doctor": ("doctor", "look at machine, packages, stores and cluster before a long job does"),
    "demo": ("demo", "all of it on packaged media, with a report"),
}
"""Module in `jobs/` of each command, and what it does."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first word names; returns the exit code."""
    if arguments is None:
        use_utf8()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with printable_streams():
            return _main(words, alone=arguments is None)
    except BrokenPipeError:
        discard_stdout()
        return ExitCode.FINE
    except BaseException as error:  # a package that is missing or broken, Ctrl-C while one is imported
        return report_failure(error, words[0] if words and words[0] in COMMANDS else "trackmill", words[1:], "")


def _main(words: list[str], alone: bool) -> int:
    if getattr(trackmill, "__file__", None) is None:
        taken = clean(", ".join(trackmill.__path__), 300)
        complain(
            f"Python takes the folder {taken} for the package trackmill, since the folder around it is in PYTHONPATH: "
            "leave that out, or give the clone another name"
        )
        return ExitCode.MISTAKE
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return ExitCode.FINE if words else ExitCode.MISTAKE
    if words[0] == "--version":
        print(f"trackmill {trackmill.__version__}")
        return ExitCode.FINE
    if words[0] == "--completion":
        return _complete(words[1:])
    if words[0] not in COMMANDS:
        advice = nearest(words[0], COMMANDS) or f"commands: {', '.join(COMMANDS)}"
        complain(f"no command is called {clean(words[0], 100)!r}; {advice}")
        return ExitCode.MISTAKE
    module, _ = COMMANDS[words[0]]
    code: int = importlib.import_module(f"trackmill.jobs.{module}").main(words[1:], alone)
    return code


def script() -> None:
    """The command `trackmill` of an installation."""
    leave(main())


def _complete(words: Sequence[str]) -> int:
    from trackmill.pipeline.console.completion import SHELLS, completion_script

    if len(words) != 1 or words[0] not in SHELLS:
        complain(f"--completion wants the name of a shell: {', '.join(SHELLS)}")
        return ExitCode.MISTAKE
    jobs = {
        name: (importlib.import_module(f"trackmill.jobs.{module}").JOB.parser(), what)
        for name, (module, what) in COMMANDS.items()
    }
    print(completion_script(words[0], jobs))
    return ExitCode.FINE


def usage() -> str:
    """What `trackmill --help` prints."""
    lines = [f"  {name:<13}{what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: trackmill COMMAND [options]",
            "",
            *lines,
            "",
            "`trackmill COMMAND --help` lists a command's options; `trackmill --version` prints the version;",
            "`trackmill --completion bash|zsh|fish` prints a script for completion in that shell.",
        ]
    )
