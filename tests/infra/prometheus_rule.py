"""Makes `infra/kubernetes/metrics/prometheus-rule.yaml`, for the Prometheus operator, out of the rules that a plain
Prometheus reads: `python -m tests.infra.prometheus_rule`. A test compares."""

from __future__ import annotations

import textwrap

from tests.infra.manifests import INFRA, KUBERNETES

ALERTS = INFRA / "prometheus" / "alerts.yaml"
RULE = KUBERNETES / "metrics" / "prometheus-rule.yaml"
_HEAD = """\
# The rules of ../../prometheus/alerts.yaml for the Prometheus operator. Change them there, then give
# `python -m tests.infra.prometheus_rule`. Metrics: pipeline/metrics/definitions.py; what to do: docs/runbook.md.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: trackmill
  labels: # CHANGE: add the labels that your Prometheus selects rules by, such as `release: prometheus` of its chart
    app.kubernetes.io/part-of: trackmill
spec:
"""


def rule() -> str:
    """The file, from the rules as they are now."""
    comments, groups, rest = ALERTS.read_text().partition("groups:\n")
    if not groups or any(not line.startswith("#") for line in comments.splitlines()):
        raise ValueError(f"{ALERTS} should be comments, and then `groups:`")
    return _HEAD + textwrap.indent(groups + rest, "  ")


if __name__ == "__main__":
    RULE.write_text(rule())
