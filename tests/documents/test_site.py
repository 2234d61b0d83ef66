"""The documentation builds without a warning; a dead link, a lost page and an unknown heading are warnings."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents.test_tree import generated_pages

ROOT = Path(__file__).parents[2]
WORDS = ["-m", "sphinx", "--builder", "html", "--fail-on-warning", "--keep-going", "--nitpicky", "--quiet"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    doctrees = tmp_path_factory.mktemp("doctrees")
    command = [sys.executable, *WORDS, "--doctree-dir", str(doctrees), "docs", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    return out


def test_it_builds_strictly_and_holds_what_the_code_says(site: Path) -> None:
    from trackmill.jobs.main import COMMANDS
    from trackmill.pipeline.console.exit_codes import ExitCode

    assert (site / "index.html").exists()
    written = {path.stem for path in (site / "reference" / "generated").glob("*.html")}
    assert written == generated_pages()
    for command in COMMANDS:
        assert (site / "reference" / "generated" / f"command-{command}.html").exists()
    mining = (site / "reference" / "generated" / "settings-mine.html").read_text()
    assert 'id="mine-run-keep-s"' in mining and "Seconds of work after which" in mining
    for page in (site / "reference" / "generated").glob("*.html"):
        assert "]{#" not in page.read_text(), f"{page.name} shows markup"
    codes = (site / "reference" / "generated" / "exit-codes.html").read_text()
    assert all(code.name in codes for code in ExitCode)
    assert (site / "_images" / "receipt.svg").exists()
    schema = json.loads((site / "schemas" / "recipe-masa.json").read_text())
    assert "optim" in schema["properties"]


def test_nothing_of_this_machine_is_in_it(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert str(ROOT) not in page.read_text(), page.name


def test_pictures_are_as_their_code_draws_them() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from generate.concept_pictures import FOLDER, PICTURES
    finally:
        sys.path.remove(str(ROOT / "docs"))
    assert {path.stem for path in FOLDER.glob("*.svg")} == set(PICTURES)
    for name, draw in PICTURES.items():
        assert (FOLDER / f"{name}.svg").read_text() == draw().svg(), f"python docs/generate/concept_pictures.py; {name}"
    text = (ROOT / "docs" / "concepts.md").read_text()
    assert set(re.findall(r"pictures/concepts/(\w+)\.svg", text)) == set(PICTURES)
