"""What a training run tells: a line of JSON a step, curves, progress for people; other programs where asked for."""

from __future__ import annotations

from trackmill.pipeline.training.telemetry.settings import TelemetrySettings, require_packages
from trackmill.pipeline.training.telemetry.telemetry import Telemetry

__all__ = ["Telemetry", "TelemetrySettings", "require_packages"]
