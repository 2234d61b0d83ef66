"""The documents agree with the tree: links lead somewhere, tables name what exists, the forms can be read."""

from __future__ import annotations

import functools
import importlib.util
import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path for path in ROOT.rglob("*.md") if not {".venv", "out", "generated"} & {*path.relative_to(ROOT).parts}
)
GENERATED = ROOT / "docs" / "reference" / "generated"
LINK = re.compile(r"\]\(([^)\s]+)\)")


@functools.cache
def generated_pages() -> set[str]:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from generate.pages import page_names

        return page_names()
    finally:
        sys.path.remove(str(ROOT / "docs"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    for link in LINK.findall(document.read_text()):
        if not re.match(r"[a-z]+:", link):
            path, _, heading = link.partition("#")
            target = document if not path else (document.parent / path).resolve()
            if target.parent == GENERATED:  # the site's build writes it
                assert target.stem in generated_pages(), f"{link}: no such page is written"
                continue
            assert target.exists(), f"{link}: there is no such file"
            if heading and target.suffix == ".md":
                titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
                anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
                assert heading in anchors, f"{link}: there is no such heading"


def test_the_changelog_names_modules_that_exist_and_none_that_are_still_there() -> None:
    moved = re.findall(
        r"^\| `([\w.]+)` \| `(trackmill\.[\w.]+)` \|$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert len(moved) > 40
    for old, new in moved:
        assert importlib.util.find_spec(new) is not None, f"{new} does not exist"
        assert not (ROOT / f"{old.replace('.', '/')}.py").exists(), f"{old} has not moved"


def test_the_readme_of_the_tests_names_every_helper() -> None:
    text = (ROOT / "tests" / "README.md").read_text()
    named = {name for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in re.findall(r"`([^`]+)`", row)}
    tests = ROOT / "tests"
    helpers = {
        path.relative_to(tests).as_posix()
        for path in tests.rglob("*.py")
        if not path.name.startswith(("test_", "__")) and "benchmarks" not in path.parts
    }
    unnamed = {helper for helper in helpers if helper not in named and helper.rpartition("/")[2] not in named}
    assert not unnamed, "tests/README.md says nothing of these"
    for name in named:
        if name.endswith(".py"):
            assert (tests / name).exists() or list(tests.rglob(name)), f"{name} does not exist"


def test_tables_of_contributing_name_what_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = [row for row in text.splitlines() if row.startswith(("| a ", "| something"))]
    assert len(rows) == 8
    for row in rows:
        for path in re.findall(r"`([\w/]+/[\w/.]*)`", row):
            assert (ROOT / path).exists(), f"{path} does not exist"
        registry = re.search(r"`([A-Z]+)` in `([\w/.]+)`", row)
        if registry:
            assert re.search(rf"^{registry[1]}\b", (ROOT / registry[2]).read_text(), re.MULTILINE), registry[0]


def test_issue_forms_and_hooks_can_be_read() -> None:
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert [form.stem for form in forms] == ["bug", "feature", "question"]
    for form in forms:
        content = yaml.safe_load(form.read_text())
        assert {"name", "description", "body"} <= content.keys()
        fields = [each for each in content["body"] if each["type"] != "markdown"]
        assert len({each["id"] for each in fields}) == len(fields)
        assert all(each["attributes"].get("label") or each["type"] == "checkboxes" for each in fields)
    (hooks,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert hooks["repo"] == "local", "hooks run from the project's own environment"
    assert {hook["id"] for hook in hooks["hooks"]} == {"ruff-check", "ruff-format", "codespell", "mypy"}
