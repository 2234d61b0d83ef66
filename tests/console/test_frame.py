"""No job ends in a traceback, whatever is raised wherever; nothing but printable lines of ours reaches a terminal."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from tests.console.test_job import failing, job
from tests.make_media import make_jpeg
from trackmill.pipeline.console import failures
from trackmill.pipeline.console.options import Options
from trackmill.pipeline.console.output import PrintableStream, raw_stream, say, warn
from trackmill.pipeline.storage.credentials import path_error

ROOT = Path(__file__).resolve().parents[2]
NASTY = "a\x1b[31mb\x07c\u202ed\u200be\x9bf\rg\udce9h\u2028i\u00a0j"
SPELT = r"a\x1b[31mb\x07c\xe2\x80\xaed\xe2\x80\x8be\xc2\x9bf\x0dg\xe9h\xe2\x80\xa8i\xc2\xa0j"


class Unspeakable(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RecursionError("deep")


def nested(depth: int) -> BaseException:
    error: Exception = ValueError("innermost")
    for _ in range(depth):
        error = ExceptionGroup("outer", [error])
    return error


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            RecursionError("maximum recursion depth exceeded"),
            1,
            "error: RecursionError: maximum recursion",
        ),
        (MemoryError(), 1, "error: out of memory"),
        (MemoryError("Unable to allocate 7 GiB"), 1, "error: out of memory, do less at once"),
        (Unspeakable(), 1, "error: Unspeakable. This is a bug in Trackmill"),
        (GeneratorExit(), 1, "error: GeneratorExit"),
        (nested(3), 1, "error: ExceptionGroup: outer (1 sub-exception)"),
        (nested(2000), 1, "error: ExceptionGroup"),
        (BaseException("odd"), 1, "error: BaseException: odd"),
        (UnicodeEncodeError("ascii", "\udce9", 0, 1, "no"), 1, "error: UnicodeEncodeError"),
        (OSError(28, "No space left on device"), 4, "error: "),
    ],
)
def test_whatever_is_raised_is_one_line(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(error).main(["--output", "x"]) == code
    printed = capsys.readouterr().err
    assert printed.startswith(said) and printed.count("\n") == 1 and "Traceback" not in printed


@pytest.mark.parametrize("second", [MemoryError(), KeyboardInterrupt(), BrokenPipeError(), RuntimeError()])
def test_an_error_while_an_error_is_told(
    second: BaseException, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(line: str) -> None:
        raise second

    monkeypatch.setattr(failures, "complain", fail)
    assert failing(KeyError("x")).main(["--output", "x"]) == (130 if isinstance(second, KeyboardInterrupt) else 1)
    printed = capfd.readouterr().err
    assert printed == ("interrupted\n" if isinstance(second, KeyboardInterrupt) else "error: KeyError\n")


def test_a_thread_and_a_destructor_that_fail_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    class Falls:
        def __del__(self) -> None:
            raise ValueError("while it goes")

    def run(given: Options) -> None:
        def work() -> None:
            raise ValueError(f"in \n{NASTY}")

        thread = threading.Thread(target=work, name="helper")
        thread.start()
        thread.join()
        Falls()
        gc.collect()

    assert job(run).main(["--output", "x"]) == 0
    printed = capsys.readouterr().err
    assert f"warning: thread helper failed: ValueError: in {SPELT.replace(chr(92) + 'x0d', ' ')}"[:40] in printed
    assert "warning: cleaning up failed: ValueError: while it goes; traceback: " in printed
    assert "Traceback" not in printed and printed.count("\n") == 2


def test_a_process_without_streams() -> None:
    """As a service manager may start it: both are closed."""
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from trackmill.jobs.main import main; sys.exit(main())"
    for words, code in ((["--help"], 0), (["track", "--oups"], 2), (["nothing"], 2)):
        command = f'exec "$0" -c "$1" {" ".join(words)} >&- 2>&-'
        assert (
            subprocess.run(["sh", "-c", command, sys.executable, script], timeout=120, check=False).returncode == code
        )


@pytest.mark.parametrize(
    "closed", [*(pytest.param(each, marks=pytest.mark.slow) for each in (">&-", "2>&-")), "<&- >&- 2>&-"]
)
def test_a_job_works_without_streams(tmp_path: Path, closed: str) -> None:
    Image.new("RGB", (64, 48), "gray").save(tmp_path / "a.png")
    command = (
        f'exec "$0" jobs/mine_proposals.py --executor inline --input {tmp_path}/a.png --output {tmp_path}/out {closed}'
    )
    done = subprocess.run(
        ["sh", "-c", command, sys.executable], cwd=ROOT, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stdout + done.stderr
    assert (tmp_path / "out" / "manifest" / "shards.parquet").is_file()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this machine has no /dev/full")
def test_a_full_disk_behind_stdout_is_a_sentence() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, str(ROOT / "jobs" / "track.py"), "--help"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert done.returncode == 4
    assert done.stderr.startswith("error: what is printed cannot be written: No space left on device")


def lines_of(how: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> str:
    assert job(lambda given: how() and None).main(["--output", "x"]) == 0
    return "".join(capsys.readouterr())


@pytest.mark.parametrize(
    "how",
    [
        lambda: print(f"named {NASTY}"),
        lambda: print(f"named {NASTY}", file=sys.stderr),
        lambda: sys.stderr.writelines([f"named {NASTY}", "\n"]),
        lambda: say(f"named {NASTY}"),
        lambda: warn(f"named {NASTY}"),
        lambda: logging.getLogger("trackmill").warning("named %s", NASTY),
        lambda: logging.getLogger("other.library").error("named %s", NASTY),
        lambda: warnings.warn(f"named {NASTY}", stacklevel=1),
        lambda: Console(force_terminal=False, width=300).print(f"named {NASTY}", markup=False),
    ],
    ids=["print", "stderr", "writelines", "say", "warn", "log", "log of a library", "warning", "rich"],
)
def test_names_bring_no_control_codes(how: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> None:
    printed = lines_of(how, capsys)
    assert "named a" in printed and all(line.isprintable() for line in printed.split("\n")[:-1])
    assert r"\xe2\x80\xaed" in printed and printed.count("\n") == 1


def test_mistakes_in_the_command_bring_none_either(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--output"], ["--output", "x", NASTY], [f"--{NASTY}"], ["--output", "x", "--set", NASTY]):
        assert job().main(words) == 2
        printed = capsys.readouterr().err
        assert printed.startswith("error: ") and printed.count("\n") == 1 and printed[:-1].isprintable()


def test_a_line_break_in_a_message_forges_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    printed = lines_of(lambda: warn("lost a\nerror: all is lost"), capsys)
    assert not any(line.startswith("error") for line in printed.splitlines())


def test_who_rewrites_lines_gets_the_stream_behind(capsys: pytest.CaptureFixture[str]) -> None:
    def rewrite() -> None:
        assert isinstance(sys.stderr, PrintableStream)
        raw_stream(sys.stderr).write("\r\x1b[Kone of two\n")

    assert lines_of(rewrite, capsys) == "\r\x1b[Kone of two\n"


def test_a_locale_without_letters(tmp_path: Path) -> None:
    """Arguments that Python cannot read in the C locale, one that is no UTF-8 anywhere, and an output of that kind."""
    make_jpeg(tmp_path / "é日.jpg")
    latin = os.path.join(os.fsencode(tmp_path), b"caf\xe9.jpg")
    os.rename(make_jpeg(tmp_path / "x.jpg") or tmp_path / "x.jpg", latin)
    output = os.path.join(os.fsencode(tmp_path), "müll".encode())
    command = [os.fsencode(sys.executable), os.fsencode(ROOT / "jobs" / "mine_proposals.py"), b"--executor", b"inline"]
    inputs = [b"--input", os.path.join(os.fsencode(tmp_path), "é日.jpg".encode()), latin, b"--output", output]
    names = ("LANG", "LC_CTYPE", "PYTHONIOENCODING")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {"PYTHONPATH": str(ROOT), "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([*command, *inputs], capture_output=True, env=environment, timeout=540, check=False)
    assert (done.returncode, b"done: 2 items (2 ok)" in done.stdout) == (0, True), done.stderr
    assert os.path.isdir(output) and done.stdout.isascii() and done.stderr.isascii()


def test_the_target_of_a_rename_is_named(tmp_path: Path) -> None:
    target, scratch = tmp_path / "plan.parquet", tmp_path / ".tmp-plan"
    target.mkdir()
    scratch.write_bytes(b"x")
    with pytest.raises(IsADirectoryError) as caught:
        os.replace(scratch, target)
    assert path_error(caught.value) == f"{target}: is a folder where a file is needed"


def test_an_output_in_memory_is_refused_of_a_command(tmp_path: Path) -> None:
    words = ["mine", "--input", str(tmp_path), "--output", "memory://set"]
    job_itself = [sys.executable, str(ROOT / "jobs" / "mine_proposals.py"), *words[1:]]
    command = [sys.executable, "-c", "from trackmill.jobs.main import script; script()", *words]
    for line in (job_itself, command):
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith("error: --output memory://set: what is written there is gone"), done.stderr
