"""The notebooks run from the first cell to the last, in an empty folder."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.runs import job_environment

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

pytest.importorskip("nbclient", reason='needs pip install -e ".[notebooks]"')


def test_there_are_four() -> None:
    assert [path.name[0] for path in NOTEBOOKS] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_committed_can_be_read_and_names_no_machine(path: Path) -> None:
    text = path.read_text()
    assert json.loads(text)["nbformat"] == 4
    for place in ("/tmp/", "/home/", "/root/"):
        assert place not in text, place


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    for name, value in job_environment().items():
        monkeypatch.setenv(name, value)
    # `trackmill` of this checkout, and `python` of this environment.
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=where).execute()
    said = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    assert said and not [out for out in said if out.output_type == "error"]
    if keep := os.environ.get("KEEP_NOTEBOOKS"):
        nbformat.write(notebook, Path(keep) / path.name)
