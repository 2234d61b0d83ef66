"""Dashboards and alerts read metrics and labels that are defined, and say what they show and what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from trackmill.pipeline.metrics.definitions import BY_NAME
from trackmill.pipeline.metrics.recorder import label_names

ROOT = Path(__file__).parents[2]
BOARDS = sorted((ROOT / "infra" / "grafana").glob("*.json"))
RULES = [
    rule
    for group in yaml.safe_load((ROOT / "infra" / "prometheus" / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
WRONG = {
    "max by (run) (trackmill_mining_unit_left)": "trackmill_mining_unit_left is not defined",
    'trackmill_mining_items_total{state="ok"}': "has no label state",
    "sum by (stage) (trackmill_mining_items_total)": "has no label stage",
    "rate(trackmill_mining_units_left[5m])": "rate of a gauge",
}


def parts(expression: Any) -> Iterator[Any]:
    """An expression and all in it."""
    yield expression
    for name in ("lhs", "rhs", "expr", "param", "vector_selector"):
        inner = getattr(expression, name, None)
        if inner is not None:
            yield from parts(inner)
    for argument in getattr(expression, "args", None) or ():
        yield from parts(argument)


def faults(text: str) -> list[str]:
    """What an expression asks for that there is not."""
    parsed = promql_parser.parse(text.replace("$run", ".+"))
    found, labels, grouped = [], set(), set()
    for part in parts(parsed):
        if isinstance(part, promql_parser.AggregateExpr) and part.modifier is not None:
            grouped |= set(part.modifier.labels)
        if isinstance(part, promql_parser.Call) and part.func.name in ("rate", "increase"):
            asked_of = [name for name in re.findall(r"trackmill_\w+", str(part)) if name in BY_NAME]
            found += [f"{part.func.name} of a gauge: {name}" for name in asked_of if BY_NAME[name].kind == "gauge"]
        if isinstance(part, promql_parser.VectorSelector):
            metric = BY_NAME.get(part.name)
            if metric is None:
                found.append(f"{part.name} is not defined")
                continue
            labels |= set(label_names(metric))
            asked = {matcher.name for matcher in part.matchers.matchers}
            found += [f"{part.name} has no label {name}" for name in asked - set(label_names(metric))]
    return found + [f"{text} has no label {name}" for name in grouped - labels if labels]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_found(text: str) -> None:
    assert any(WRONG[text] in fault for fault in faults(text))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert(rule: dict[str, Any]) -> None:
    assert faults(rule["expr"]) == []
    notes = rule["annotations"]
    assert {"summary", "description", "runbook_url"} <= notes.keys()
    assert rule["labels"]["severity"] in ("warning", "critical")
    place, _, anchor = notes["runbook_url"].partition("#")
    runbook = ROOT / place
    if runbook.exists():
        headings = re.findall(r"^#+ (.+)$", runbook.read_text(), re.MULTILINE)
        slugs = {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
        assert anchor in slugs or f'id="{anchor}"' in runbook.read_text(), f"{place} has no heading {anchor}"


def test_the_five_things_that_go_wrong_are_watched() -> None:
    kinds = {(rule["alert"][9:15], rule["annotations"]["runbook_url"].partition("#")[2]) for rule in RULES}
    mining = {kind for who, kind in kinds if who == "Mining"}
    assert mining == {"no-progress", "quarantine", "worker-deaths", "model-idle", "disk-full"}
    training = {kind for who, kind in kinds if who == "Traini"}
    assert training == {"no-progress", "worker-deaths", "model-idle", "checkpoint-old", "disk-full"}


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_a_dashboard(path: Path) -> None:
    board = json.loads(path.read_text())
    variables = {each["name"]: each for each in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert set(re.findall(r"trackmill_\w+", variables["run"]["query"])) <= BY_NAME.keys()
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        assert panel["title"] and panel["description"].endswith(".") and panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}"
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
        for target in panel["targets"]:
            assert faults(target["expr"]) == [], panel["title"]


def test_every_metric_is_shown_or_watched() -> None:
    text = "".join(path.read_text() for path in BOARDS) + json.dumps(RULES)
    unseen = {name for name in BY_NAME if not re.search(rf"{name}\b", text)}
    others = {"training_epoch", "training_checkpoint_step", "training_output_size_bytes"}
    assert unseen <= {f"trackmill_{name}" for name in others | {"mining_started_timestamp_seconds"}}


def test_rays_names_become_ours() -> None:
    jobs = yaml.safe_load((ROOT / "infra" / "prometheus" / "scrape.yaml").read_text())["scrape_configs"]
    rules = [rule for job in jobs if "ray" in job["job_name"] for rule in job["metric_relabel_configs"]]
    assert len(rules) == 2
    for rule in rules:
        for name in BY_NAME:
            matched = re.fullmatch(rule["regex"], f"ray_{name}")
            assert matched is not None and matched[1] == name
