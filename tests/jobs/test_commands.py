"""What all jobs have in common: `trackmill NAME`, help and mistakes without heavy imports, names of options."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import trackmill
from trackmill.jobs.main import COMMANDS, main
from trackmill.pipeline.console.job import Job

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "torchvision", "ray", "scipy", "skimage", "pandas", "pyarrow", "albumentations", "timm", "av", "cv2")
LIGHT_ENOUGH = {"track": {"av"}}
"""PyAV comes with the settings of reading frames, and takes a tenth of a second."""
SAME_NAMES = ("--output", "--model", "--weights", "--workers", "--device", "--config", "--set", "--version")
OLDER_NAMES = {
    "mine": {"--actors": "workers", "--sam-variant": "model"},
    "train": {"--num-workers": "workers"},
    "evaluate": {"--out": "output"},
    "convert": {"--variant": "model"},
}
# A mistake that each job meets before it has anything to do.
MISTAKES = {
    "mine": ["--output", "out", "--set", "read.longest_sied=3"],
    "status": ["set", "--jsn"],
    "inspect": ["set", "--statz"],
    "filter": ["set", "--output", "out", "--min-object", "3"],
    "merge": ["set", "other", "--output", "out", "--duplicates", "frist"],
    "split": ["set", "--output", "out", "--parts", "train=1", "--group", "vidoe"],
    "export-data": ["set", "--output", "out", "--format", "cocoo"],
    "view": ["set", "--prot", "8000"],
    "push": ["set", "hf://datasets/org/name", "--pubilc"],
    "sidecar": ["root", "chains", "--exekutor", "inline"],
    "negatives": ["--data", "root", "--detektor", "detic"],
    "mine-chains": ["--data", "root", "--detectro", "ssdlite-person"],
    "audit": ["set", "--sidecra", "negatives"],
    "train": ["--output", "out", "--recipe", "masa_lite"],
    "curves": ["run", "--outputt", "curves.png"],
    "track": ["--video", "x", "--detections", "y", "--output", "out", "--trackr", "tao"],
    "evaluate": ["--benchmark", "mot71", "--gt", "x"],
    "export": ["--weights", "x", "--output", "out", "--model", "masa_lite"],
    "convert": ["--weights", "x", "--output", "out", "--model", "masa_r05"],
    "vocabulary": ["--clases", "dog", "--output", "out.npz"],
    "doctor": ["--outputt", "out"],
    "demo": ["--set", "stepz=3"],
}


def the_job(name: str) -> Job:
    found: Job = importlib.import_module(f"trackmill.jobs.{COMMANDS[name][0]}").JOB
    return found


def in_a_process(*words: str) -> tuple[int, str, str, set[str], float]:
    """Exit code, stdout, stderr, heavy packages that were imported, seconds of CPU."""
    code = (
        "import resource, sys\n"
        "from trackmill.jobs.main import main\n"
        "code = main(sys.argv[1:])\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "usage = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print('\\nCOUNTED', code, usage.ru_utime + usage.ru_stime, *heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=True)
    out, _, counted = done.stdout.rpartition("\nCOUNTED ")
    status, seconds, *heavy = counted.split()
    return int(status), out, done.stderr, set(heavy), float(seconds)


def test_every_job_has_a_command() -> None:
    modules = {path.stem for path in (ROOT / "jobs").glob("*.py")} - {"__init__", "main"}
    assert {module for module, _ in COMMANDS.values()} == modules
    assert {name: the_job(name).name for name in COMMANDS} == {name: name for name in COMMANDS}
    assert set(MISTAKES) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_imports_nothing_heavy(name: str) -> None:
    status, out, _, heavy, seconds = in_a_process(name, "--help")
    print(f"trackmill {name} --help: {seconds:.2f} s of CPU")
    assert status == 0 and out.startswith(f"usage: trackmill {name} ")
    assert not heavy - LIGHT_ENOUGH.get(name, set())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_mistake_imports_nothing_heavy(name: str) -> None:
    status, _, err, heavy, seconds = in_a_process(name, *MISTAKES[name])
    print(f"trackmill {name} {' '.join(MISTAKES[name])}: {seconds:.2f} s of CPU")
    assert status == 2 and "did you mean" in err and err.count("\n") == 1, err
    assert not heavy - LIGHT_ENOUGH.get(name, set())


def test_one_name_for_one_thing() -> None:
    """Each name means the same in every job that has it, and no job has another one for it."""
    for name in COMMANDS:
        known = {option for action in the_job(name).parser()._actions for option in action.option_strings}
        assert "--version" in known
        assert known.isdisjoint({"--out", "--actors", "--num-workers", "--variant", "--sam-variant", "--output-dir"})
        assert ("--set" in known) == ("--config" in known) == ("--print-config" in known)
    offered = {option for name in COMMANDS for option in the_job(name).parser()._option_string_actions}
    assert set(SAME_NAMES) <= offered


@pytest.mark.parametrize("name", OLDER_NAMES)
def test_older_names_still_work(name: str) -> None:
    parser = the_job(name).parser()
    shown = parser.format_help()
    for older, attribute in OLDER_NAMES[name].items():
        assert parser._option_string_actions[older].dest == attribute
        assert not re.search(rf"{older}\b", shown)


def test_a_misspelt_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evalute"]) == 2  # codespell:ignore
    assert capsys.readouterr().err == "error: no command is called 'evalute'; did you mean 'evaluate'?\n"
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"trackmill {trackmill.__version__}\n"
    assert main([]) == 2 and main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert all(f"\n  {name} " in listed for name in COMMANDS)


def test_names_of_the_package_are_imported_when_they_are_used() -> None:
    code = (
        "import sys, trackmill\n"
        "assert not {'torch', 'pydantic', 'numpy'} & set(sys.modules)\n"
        "from trackmill import FastMaskGenerator, VideoTracker, evaluate\n"
        "print(VideoTracker.__name__, FastMaskGenerator.__name__, evaluate.__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["VideoTracker", "FastMaskGenerator", "evaluate"]
    with pytest.raises(AttributeError, match="has no attribute 'Trakcer'"):
        _ = trackmill.Trakcer


def test_evaluate_from_python(tmp_path: Path) -> None:
    for side, frames in (("gt", (1, 2, 3, 4)), ("results", (1, 2, 4))):
        (tmp_path / side).mkdir()
        lines = [f"{frame},1,{10 * frame},20,30,40,1,1,1\n" for frame in frames]
        (tmp_path / side / "A.txt").write_text("".join(lines))
    report = trackmill.evaluate(tmp_path / "gt", tmp_path / "results", sequences=("A",))
    assert report.metrics["MOTA"] == pytest.approx(75) and list(report.sequences) == ["A"]
    with pytest.raises(ValueError, match="did you mean 'youtubevis'"):
        trackmill.evaluate("gt", "results", "youtubvis")
    with pytest.raises(ValueError, match="did you mean 'sequences'"):
        trackmill.evaluate("gt", "results", sequence=("A",))


def test_it_runs_beside_packages_of_the_same_names(tmp_path: Path) -> None:
    """A project with folders `models`, `pipeline`, `schemas` and `jobs` of its own, as most vision projects have."""
    for name in ("models", "pipeline", "schemas", "jobs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("mine = True\n")
    (tmp_path / "program.py").write_text(
        "import jobs, models, pipeline, schemas\n"
        "assert models.mine and pipeline.mine and schemas.mine and jobs.mine\n"
        "from trackmill import VideoTracker, evaluate\n"
        "from trackmill.models.association import MasaTaoTracker\n"
        "import trackmill.models, trackmill.jobs.main\n"
        "print(trackmill.models.__path__[0])\n"
        "sys_exit = trackmill.jobs.main.main(['mine', '--input', 'in', '--output', 'out', '--executor', 'inline'])\n"
        "assert sys_exit == 0\n"
    )
    from tests.make_media import make_pictures

    make_pictures(tmp_path / "in", count=2)
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == str(ROOT / "models")
    assert (tmp_path / "out" / "manifest" / "items.parquet").exists()
    command = [str(Path(sys.executable).parent / "trackmill"), "inspect", "out", "--verify"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0 and done.stdout.startswith("OK: "), done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_a_shell_completes_commands_options_choices_and_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "video.mp4").touch()

    def completed(*words: str) -> set[str]:
        ask = 'source ./script; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_trackmill; echo "${COMPREPLY[@]}"'
        ran = subprocess.run(["bash", "-c", ask, "bash", *words], cwd=tmp_path, capture_output=True, text=True)
        return set(ran.stdout.split())

    assert completed("trackmill", "tr") == {"train", "track"}
    assert completed("trackmill", "train", "--max-") == {"--max-steps"}
    assert completed("trackmill", "mine", "--executor", "") == {"ray", "inline"}
    assert completed("trackmill", "track", "--video", "vi") == {"video.mp4"}


def test_completion_of_a_shell_that_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--completion", "cmd"]) == 2
    assert "bash, zsh" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        # What a shell makes of a variable that is not set: without a word, the whole cluster, or packaged media
        (["mine", "--output", "o", "--part", ""], "--part is empty"),
        (["mine", "--output", "o", "--part="], "--part is empty"),
        (["mine", "--output", "o", "--input-list", ""], "--input-list is empty"),
        (["mine", "--output", "o", "--chains", ""], "--chains is empty"),
        (["mine", "--output", "o", "--config", ""], "--config is empty"),
        # Seconds and items that no clock and no column holds
        (["status", "o", "--watch", "1000000000000"], "at most 1,000,000,000"),
        (["doctor", "--timeout", "9" * 30], "at most 1,000,000,000"),
        (["mine", "--output", "o", "--limit", "9" * 5000], "is no whole number"),
        (["mine", "--output", "o", "--plan-only", "--usd-per-gpu-hour", "nan"], "is no price"),
        (["mine", "--output", "o", "--plan-only", "--usd-per-gpu-hour", "-5"], "is no price"),
        # Integers that C does not hold
        (["mine", "--output", "o", "--set", "run.threads=9999999999"], "run.threads"),
        (["mine", "--output", "o", "--set", "graph.min_size=9999999999"], "graph.min_size"),
    ],
)
def test_values_that_nobody_means(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    printed = capsys.readouterr().err
    assert said in printed and len(printed) < 400


def test_an_empty_setting_is_the_settings_own_matter(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mine", "--output", "o", "--max-quarantined", "", "--print-config"]) == 0
    assert 'max_quarantined = ""' in capsys.readouterr().out
