"""Where a run may write: into a new or empty folder, or into one that holds a run already."""

from __future__ import annotations

from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.documents import DamagedDocument, read_document
from trackmill.pipeline.storage.urls import canonical, filesystem, join
from trackmill.schemas.config import ConfigError

OWN = frozenset(
    {
        "checkpoints",
        "config.json",
        "evaluations.jsonl",
        "events.jsonl",
        "final",
        "hangs",
        "metrics.jsonl",
        "telemetry.html",
        "telemetry.json",
        "tensorboard",
        "wandb",
        "mlruns",
    }
)
"""What a run writes."""
_BESIDE = (".log", ".out", ".err", ".txt", ".toml", ".yaml", ".yml", ".sh", ".md", ".html")
"""Endings of what people and schedulers put beside it."""


def check_output(output: str, data: str) -> None:
    """Refuse a folder that holds something else than a run, whose files would be mixed with it or written over.

    Args:
        output: root of the run.
        data: of the data set.

    Raises:
        ConfigError: names what is there, and what to give.
        OSError: it cannot be listed.
    """
    shown, advice = redact(output), "give the run a folder of its own"
    root = canonical(data).rstrip("/")
    if root == output.rstrip("/"):
        raise ConfigError(f"--output {shown} is the data set that --data names; {advice}")
    try:
        document = read_document(join(output, "config.json"))
    except FileNotFoundError:
        document = None
    except DamagedDocument as error:
        if _names(output) & {"checkpoints", "final"}:
            return  # of a run, which writes it again
        raise ConfigError(f"--output {shown} holds a config.json that is none of a run's ({error}); {advice}") from None
    if document is not None and "task" in document:
        return
    if document is not None and "parts" in document:
        raise ConfigError(f"--output {shown} is a data set; {advice}")
    if document is not None:
        raise ConfigError(f"--output {shown} holds a config.json that is none of a run's; {advice}")
    others = sorted(
        name for name in _names(output) if name not in OWN and not name.startswith(".") and not name.endswith(_BESIDE)
    )
    if others:
        named = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise ConfigError(f"--output {shown} holds something else than a run ({named}); {advice}")


def _names(url: str) -> set[str]:
    """Names in a folder, one level deep; none where there is no folder."""
    fs, path = filesystem(url)
    try:
        fs.invalidate_cache()
        return {entry.rstrip("/").rpartition("/")[2] for entry in fs.ls(path, detail=False)}
    except (FileNotFoundError, NotADirectoryError):
        return set()
