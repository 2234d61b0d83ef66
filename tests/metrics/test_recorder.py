"""Metrics: names and labels are those of the definitions, and what is recorded is what Prometheus reads."""

from __future__ import annotations

import socket
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from trackmill.pipeline.metrics.definitions import BY_NAME, MINING, MOST_VALUES, TRAINING
from trackmill.pipeline.metrics.prometheus import PrometheusMetrics
from trackmill.pipeline.metrics.recorder import Recorder
from trackmill.pipeline.metrics.settings import MetricsSettings, make_recorder


def read(text: str) -> dict[tuple[str, ...], float]:
    """Values by name and label values, in the order of the labels' names."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, *(sample.labels[name] for name in sorted(sample.labels))] = sample.value
    return found


def test_names_say_what_they_are() -> None:
    assert len(BY_NAME) == len(MINING) + len(TRAINING)
    for metric in BY_NAME.values():
        assert metric.name.startswith(("trackmill_mining_", "trackmill_training_"))
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.help.endswith(".") and len(metric.labels) <= 3


def test_counters_add_up_and_gauges_are_set(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "x.prom"
    recorder = Recorder("run-1", [PrometheusMetrics(0, "", str(file), write_s=3600)], clock=lambda: 1234.5)
    recorder.add("trackmill_mining_items_total", 3, status="ok")
    recorder.add("trackmill_mining_items_total", 2, status="ok")
    recorder.add("trackmill_mining_items_total", 0, status="skipped")
    recorder.set("trackmill_mining_units_left", 7)
    recorder.set("trackmill_mining_units_left", 6)
    recorder.set_now("trackmill_mining_last_sign_timestamp_seconds")
    recorder.close()
    assert read(file.read_text()) == {
        ("trackmill_mining_items_total", "run-1", "ok"): 5,
        ("trackmill_mining_units_left", "run-1"): 6,
        ("trackmill_mining_last_sign_timestamp_seconds", "run-1"): 1234.5,
    }
    assert [path.name for path in file.parent.iterdir()] == ["x.prom"], "no scratch file is left"
    recorder.add("trackmill_mining_items_total", 1, status="ok")  # afterwards nobody listens


def test_what_is_not_defined_is_a_bug() -> None:
    recorder = Recorder("run", [PrometheusMetrics(0, "", "")])
    with pytest.raises(KeyError):
        recorder.set("trackmill_mining_unit", 1)
    with pytest.raises(AssertionError, match="is a gauge"):
        recorder.add("trackmill_mining_units_left", 1)
    with pytest.raises(AssertionError, match="has the labels"):
        recorder.add("trackmill_mining_items_total", 1)


def test_labels_are_bounded(tmp_path: Path) -> None:
    file = tmp_path / "x.prom"
    recorder = Recorder("run", [PrometheusMetrics(0, "", str(file), write_s=3600)])
    for number in range(MOST_VALUES + 20):
        recorder.add("trackmill_mining_quarantined_total", 1, error_class=f"Error{number}")
    recorder.close()
    found = read(file.read_text())
    assert len(found) == MOST_VALUES + 1
    assert found["trackmill_mining_quarantined_total", "other", "run"] == 20


def test_a_port_serves_what_is_recorded() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    recorder = make_recorder(MetricsSettings(metrics_port=port), "s3://bucket/sets/mine", on_ray=False)
    recorder.set("trackmill_training_step", 40)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        assert read(answer.read().decode()) == {("trackmill_training_step", "mine"): 40}
    recorder.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=60)


def test_a_port_that_is_taken_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        recorder = make_recorder(MetricsSettings(metrics_port=port), "out", on_ray=False)
        recorder.set("trackmill_training_step", 1)
        recorder.close()
    assert f"port {port} of 127.0.0.1 cannot be had" in caplog.text


def test_a_back_end_that_fails_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(PrometheusMetrics):
        def set(self, *_: object) -> None:
            raise OSError("no room")

    recorder = Recorder("run", [Broken(0, "", "")])
    recorder.set("trackmill_training_step", 1)
    recorder.set("trackmill_training_step", 2)
    assert caplog.text.count("metrics are told no more by Broken: no room") == 1
    assert not recorder


def test_node_exporter_reads_prom_files_alone() -> None:
    with pytest.raises(ValidationError, match=r"ends in .prom"):
        MetricsSettings(metrics_file="metrics.txt")
    assert not make_recorder(MetricsSettings(), "out", on_ray=False)
