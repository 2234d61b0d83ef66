"""Whether results can be written is found out before the work, and nothing is left by finding it out."""

from __future__ import annotations

from pathlib import Path

import pytest

from trackmill.jobs import convert, export
from trackmill.pipeline.storage.output_folder import check_output_folder


def test_a_folder_that_can_be_written_is_not_even_made(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "new", tmp_path / "new" / "deeper", tmp_path / "a::b [c]"):
        check_output_folder(str(folder), ("a.txt", "b.txt"), "--output")
    check_output_folder("memory://anywhere", ("a.txt",), "--output")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("/proc/1/out", "--output /proc/1/out: nothing can be made in /proc/1; give a folder that you may write to"),
        ("/dev/null", "/dev/null is a file; give a folder, which need not exist"),
        ("/dev/null/out", "/dev/null is a file"),
        ("/tmp/" + "x" * 300, "the name is too long"),
        ("http://127.0.0.1:9/out", "a web server only hands out"),
    ],
)
def test_what_cannot_be_written_is_told_with_the_mend(output: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        check_output_folder(output, ("a.txt",), "--output")
    assert "Errno" not in str(error.value)


@pytest.mark.parametrize("job", [convert, export])
def test_jobs_look_before_they_read_weights(job: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.main(["--weights", "no/such/file.pth", "--output", "/dev/null"]) == 2  # type: ignore[attr-defined]
    assert "/dev/null is a file; give a folder" in capsys.readouterr().err
