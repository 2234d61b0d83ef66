"""Weights & Biases, online or offline."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from trackmill.pipeline.storage.urls import is_local
from trackmill.pipeline.training.telemetry.sinks import Scalars


class WandbSink:
    """Logs to a run; what the process prints and its source code are not sent.

    Where nobody is logged in, the run is kept in a folder: training never waits for somebody to answer a question.

    Args:
        project: of the run.
        run_name: shown there.
        config: of the run, nested.
        output: files that W&B keeps go below it if it is local, or else where WANDB_DIR says.
        run_id: of an earlier attempt. W&B drops steps that it has already; offline it keeps a folder for each attempt,
            and `wandb sync` joins them by the id.
    """

    name = "Weights & Biases"

    def __init__(self, project: str, run_name: str, config: Mapping[str, Any], output: str, run_id: str | None) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        directory = os.environ.get("WANDB_DIR") or (output if is_local(output) else None)
        if directory:
            os.makedirs(directory, exist_ok=True)
        mode = os.environ.get("WANDB_MODE", "")
        offline = mode in ("offline", "dryrun")
        self.notice = ""
        """What people should know; empty where all is as they asked."""
        if mode in ("", "online") and not wandb.login(prompt=False, verify=False):
            offline = True
            self.notice = (
                f"Weights & Biases: nobody is logged in here (WANDB_API_KEY, or `wandb login`), so the run is kept in "
                f"{directory or '.'}/wandb; `wandb sync` sends it later"
            )
        self._run = wandb.init(
            project=project,
            name=run_name,
            id=run_id,
            resume="allow" if run_id and not offline else None,
            config=dict(config),
            dir=directory,
            mode="offline" if offline else None,
            settings=wandb.Settings(console="off", disable_git=True, disable_code=True, silent=True),
        )
        self.run_id = str(self._run.id)

    def scalars(self, scalars: Scalars) -> None:
        """One log for each step."""
        for step, values in scalars:
            self._run.log(values, step=step)

    def sync(self) -> None:
        """W&B has a process of its own for that."""

    def close(self, status: str) -> None:
        """End the run there."""
        self._run.finish(exit_code=0 if status == "finished" else 1)
