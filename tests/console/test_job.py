"""The frame of jobs: layers of settings, the exit code of each failure, and that a bug is blamed on nobody."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import tomllib
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import jsonschema
import pytest
from PIL import Image
from pydantic import Field

from trackmill.models import outside
from trackmill.pipeline.console.blame import place_outside
from trackmill.pipeline.console.choices import OneOf
from trackmill.pipeline.console.job import Job
from trackmill.pipeline.console.options import JobParser, Options, positive
from trackmill.pipeline.console.output import say
from trackmill.pipeline.console.setting_options import keywords_of_setting
from trackmill.pipeline.storage.files import read_bytes
from trackmill.schemas.config import Settings, build
from trackmill.schemas.errors import InputError, JobError, MissingPackage, StorageError

SECRET = "s3cr3t-value-of-a-key"


class ReadSettings(Settings):
    longest_side: int = Field(1024, ge=1, description="Of stored frames, in pixels.")
    licence: str | None = Field(None, description="What the source knows, if None.")


class OverlapSettings(Settings):
    iou: float = Field(0.4, description="IoU of the NMS.")
    side: float = Field(0.4, description="A side.")


class RunSettings(Settings):
    executor: Literal["ray", "inline"] = Field("ray", description="Where the work is done; 100 % of it.")
    actors: int = Field(0, ge=0, description="Size of the pool.")
    sizes: dict[str, int] = Field({}, description="By name.")
    parts: tuple[dict[str, float], ...] = Field((), description="One after the other.")
    names: tuple[str, ...] = Field((), description="Of what is left out.")


class Config(Settings):
    title: str = Field('a "title"', description="Shown.")
    read: ReadSettings = ReadSettings()
    run: RunSettings = RunSettings()


def options(p: JobParser) -> None:
    p.option("--output", required=True, metavar="URL", aliases=["--out"], help="where to")
    p.option("--executor", key="run.executor")
    p.option("--workers", key="run.actors", aliases=["--actors", "--num-workers"])
    p.option("--names", key="run.names")
    p.option("--limit", type=positive)
    p.option("--kind", type=OneOf(["graph", "sam"], lambda name: ":" in name))


def resolve(given: Options) -> Config:
    return build(Config, given.values, "settings")


def job(run: Callable[[Options], int | None] = lambda given: None) -> Job:
    return Job(
        name="sample",
        description="A job.",
        add_options=options,
        run=run,
        settings=f"{__name__}:Config",
        resolve=resolve,
        goes_on="the same command goes on",
    )


def failing(error: BaseException) -> Job:
    def run(given: Options) -> None:
        raise error

    return job(run)


def test_layers(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('title = "file"\n[run]\nactors = 1\nexecutor = "inline"\n[read]\nlongest_side = 5\n')
    words = ["--output", "x", "--config", str(file), "--set", "run.actors=2", "--set", "read.longest_side=6"]
    config = resolve(job().read([*words, "--workers", "3", "--names", "a", "b"]))
    assert (config.title, config.run.executor) == ("file", "inline")
    assert (config.run.actors, config.read.longest_side, config.run.names) == (3, 6, ("a", "b"))


def test_values_of_set_are_toml_and_words_are_text() -> None:
    given = job().read(["--output", "x", *("--set", "title=two words"), *("--set", 'run.names=["a"]')])
    assert given.values == {"title": "two words", "run": {"names": ["a"]}}


@pytest.mark.parametrize("name", ["--workers", "--actors", "--num-workers"])
def test_older_names_work(name: str) -> None:
    assert job().read(["--out", "x", name, "4"]).values == {"run": {"actors": 4}}


def test_help_comes_from_the_settings_and_hides_older_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert job().main(["--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--executor {ray,inline} where the work is done; 100 % of it (default ray)" in text
    assert "--workers N size of the pool (default 0)" in text
    assert "--num-workers" not in text and "--out " not in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--outptu", "x"], "unknown option --outptu; did you mean '--output'?"),
        (["--out", "x", "--work", "1"], "unknown option --work; did you mean '--workers'?"),  # no abbreviations
        (["--output", "x", "--executor", "inlin"], "'inlin' is unknown; did you mean 'inline'?; known: ray, inline"),
        (["--output", "x", "--workers", "-1"], "argument --workers: '-1': Input should be greater than or equal to 0"),
        (["--output", "x", "--workers", "many"], "argument --workers: 'many'"),
        (["--output", "x", "--limit", "0"], "'0' is no whole number of 1 or more"),
        (["--output", "x", "--kind", "grpah"], "did you mean 'graph'?"),  # codespell:ignore
        (["--output", "x", "y"], "unexpected argument 'y'"),
        ([], "required: --output"),
        (
            ["--output", "x", "--set", "read.longest_sied=3"],
            "unknown key 'read.longest_sied'; did you mean 'read.longest_side'?",
        ),
        (["--output", "x", "--set", "title"], "should be KEY=VALUE"),
        (["--output", "x", "--config", "no/such/file.toml"], "no/such/file.toml"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert job(lambda given: resolve(given) and None).main(words) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and printed.out == ""


def test_help_keeps_the_capitals_of_abbreviations() -> None:
    assert keywords_of_setting(OverlapSettings, "iou")["help"] == "IoU of the NMS (default 0.4)"
    assert keywords_of_setting(OverlapSettings, "side")["help"] == "a side (default 0.4)"


def test_a_class_of_ones_own_is_no_typing_error() -> None:
    assert job().read(["--output", "x", "--kind", "mine.module:Class"]).kind == "mine.module:Class"


def test_a_config_that_is_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.toml"
    file.write_bytes(b"\xff\xfe\x00")
    assert job().main(["--output", "x", "--config", str(file)]) == 2
    assert "not a text file" in capsys.readouterr().err


def test_printed_settings_give_the_same_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert job().main(["--print-config", "--set", "run.names=['a', 'b']", "--workers", "7"]) == 0
    text = capsys.readouterr().out
    assert "# Of stored frames, in pixels.\nlongest_side = 1024" in text
    assert "# licence =" in text
    assert tomllib.loads(text)["run"]["actors"] == 7
    file = tmp_path / "run.toml"
    file.write_text(text)
    wanted = resolve(job().read(["--output", "x", "--set", "run.names=['a', 'b']", "--workers", "7"]))
    assert resolve(job().read(["--output", "x", "--config", str(file)])) == wanted


def test_a_printed_schema_takes_the_printed_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert job().main(["--print-schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert job().main(["--print-config", "--workers", "7"]) == 0
    values = tomllib.loads(capsys.readouterr().out)
    jsonschema.validate(values, schema)
    values["run"]["actorss"] = 7
    with pytest.raises(jsonschema.ValidationError, match="actorss"):
        jsonschema.validate(values, schema)


def test_printed_tables_stay_in_their_line(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--print-config", "--set", "run.sizes={a = 1}", "--set", "run.parts=[{b = 2.0}, {b = 3.0}]"]
    assert job().main(words) == 0
    text = capsys.readouterr().out
    wanted = (
        "# By name.\nsizes = {a = 1}\n# One after the other.\nparts = [\n    {b = 2.0},\n    {b = 3.0},\n]\n"
        "# Of what is left out.\nnames = []"
    )
    assert wanted in text
    assert tomllib.loads(text)["run"]["parts"] == [{"b": 2.0}, {"b": 3.0}]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert job().main(["--version"]) == 0
    assert re.fullmatch(r"trackmill \d+\.\d+\.\d+\n", capsys.readouterr().out)


def missing_path() -> BaseException:
    try:
        read_bytes("/no/such/folder/file")
    except OSError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        pytest.param(InputError("x"), 2, id="mistake"),
        pytest.param(MissingPackage("x"), 2, id="package"),
        pytest.param(missing_path(), 2, id="no such path"),
        pytest.param(FileNotFoundError("no checkpoint at x"), 2, id="no such path, in words"),
        pytest.param(FileNotFoundError(errno.ENOENT, "No such file", "/home/me/data.json"), 2, id="opened elsewhere"),
        pytest.param(JobError("x"), 1, id="work failed"),
        pytest.param(MemoryError(), 1, id="out of memory"),
        pytest.param(RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1, id="PyTorch out of memory"),
        pytest.param(type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), 1, id="GPU out of memory"),
        pytest.param(StorageError("x"), 4, id="storage"),
        pytest.param(OSError(errno.ENOSPC, "No space left on device"), 4, id="disk full"),
        pytest.param(PermissionError(errno.EACCES, "Permission denied", "/data/x"), 4, id="not allowed"),
        pytest.param(KeyboardInterrupt(), 130, id="stopped"),
    ],
)
def test_codes_of_what_is_expected(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(error).main(["--output", "x"]) == code
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert "bug" not in printed.err
    assert ("the same command goes on" in printed.err) == (code in (1, 4, 130))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("operands could not be broadcast"),
        TypeError("unsupported operand"),
        KeyError("boxes"),
        RuntimeError("size mismatch"),
        ImportError("libcudart.so: cannot open shared object file"),
        OSError("libcudart.so: cannot open shared object file"),
        ConnectionError("no cluster"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "c++"),
        FileNotFoundError(errno.ENOENT, "No such file", str(Path(__file__).parents[2] / "pipeline/console/x.html.j2")),
    ],
    ids=lambda error: f"{type(error).__name__}-{str(error)[:20]}",
)
def test_a_bug_is_no_mistake(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert failing(error).main(["--output", f"s3://me:{SECRET}@bucket/x"]) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.startswith(f"error: {type(error).__name__}") and "This is a bug" in line
    path = Path(line.split("traceback: ")[1].strip())
    text = path.read_text()
    assert path.parent == tmp_path and path.name.startswith("trackmill-sample-")
    assert "Traceback (most recent call last)" in text and "in failing" not in text.split("Traceback")[0]
    assert "raise error" in text and type(error).__name__ in text
    assert SECRET not in text and SECRET not in line
    assert "trackmill sample --output" in text


def test_leaving_in_the_middle_of_the_work_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    """As a proposer of somebody's does that calls `sys.exit`; the job would seem done."""
    assert failing(SystemExit("bye")).main(["--output", "x"]) == 1
    assert "something called sys.exit('bye')" in capsys.readouterr().err


def test_the_line_of_somebody_elses_code_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where another process raised it, and its traceback is all that came."""
    theirs = tmp_path / "theirs.py"
    theirs.write_text("x = 1\nraise KeyError('lost')\n")
    ran = subprocess.run([sys.executable, str(theirs)], capture_output=True, text=True)
    assert place_outside(ran.stderr) == "theirs.py:2"
    assert failing(RuntimeError(f"Caught KeyError in worker 0.\n{ran.stderr}")).main(["--output", "x"]) == 1
    line = capsys.readouterr().err
    assert line.startswith("error: KeyError: 'lost'. It was raised in theirs.py:2, code that is not Trackmill's")
    assert place_outside("".join(traceback.format_exception(missing_path()))) == ""


def test_what_was_imported_from_outside_may_be_to_blame(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(outside, "OUTSIDE", ["mine.module:Detector"])
    assert failing(TypeError("'NoneType' object is not iterable")).main(["--output", "x"]) == 1
    assert "a bug in Trackmill, in a library, or in what mine.module:Detector returned" in capsys.readouterr().err


def test_no_room_for_the_log(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/no/such/folder")
    assert failing(KeyError("x")).main(["--output", "x"]) == 1
    printed = capsys.readouterr().err
    assert "Traceback (most recent call last)" in printed and "no log file could be written" in printed


def test_credentials_are_never_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)

    def run(given: Options) -> None:
        say(f"key {SECRET}")
        logging.getLogger("trackmill").info("logged %s", SECRET)
        raise InputError(f"refused\n{SECRET}\x1b[31m")

    assert job(run).main(["--output", "x"]) == 2
    assert job().main(["--output", "x", f"s3://me:{SECRET}@bucket/x"]) == 2
    printed = capsys.readouterr()
    assert SECRET not in printed.out + printed.err and "\x1b" not in printed.err
    assert "key ***" in printed.out and "logged ***" in printed.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_stop_as_ctrl_c_does_and_what_was_there_before_comes_back(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_DFL)
    try:

        def run(given: Options) -> None:
            os.kill(os.getpid(), number)
            threading.Event().wait(60)

        assert job(run).main(["--output", "x"]) == 130
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_nohup_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert job(lambda given: os.kill(os.getpid(), signal.SIGHUP)).main(["--output", "x"]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_it_runs_in_another_thread() -> None:
    """Where no signals can be caught."""
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(job().main(["--output", "x"])))
    thread.start()
    thread.join()
    assert codes == [0]


def test_a_missing_program_is_not_a_missing_input() -> None:
    def run(given: Options) -> None:
        subprocess.run(["no-such-program-anywhere"], check=True)

    assert job(run).main(["--output", "x"]) == 1


def test_a_second_ctrl_c_while_a_job_leaves_ends_it_at_once_without_a_traceback() -> None:
    """What a library does at the end of the process, such as stopping Ray, takes seconds."""
    script = (
        "import atexit, time\n"
        "from trackmill.pipeline.console.leaving import leave\n"
        "@atexit.register\n"
        "def end():\n"
        "    print('leaving', flush=True)\n"
        "    time.sleep(600)\n"
        "leave(130)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "leaving\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors == ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_the_letters_of_a_name_gets_their_numbers(tmp_path: Path, encoding: str) -> None:
    picture = tmp_path / "日本é.png"
    Image.new("RGB", (32, 32)).save(picture)
    root = Path(__file__).resolve().parents[2]
    command = [
        sys.executable,
        str(root / "jobs" / "mine_proposals.py"),
        "--executor",
        "inline",
        "--input",
        str(picture),
    ]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "aus日")],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(root)},
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert rb"aus\u65e5" in done.stdout
