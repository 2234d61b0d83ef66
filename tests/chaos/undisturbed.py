"""The run that nothing happens to: one process, local disk, the true time."""

from __future__ import annotations

import subprocess

from tests.chaos.setting import Setting


class NotEvenCalm(Exception):
    """The undisturbed run failed; the text holds what it printed."""


def mine_undisturbed(setting: Setting) -> None:
    """Mine the corpus into `setting.undisturbed`.

    Raises:
        NotEvenCalm: see there.
    """
    command = [*setting.command(str(setting.undisturbed)), "--executor", "inline"]
    done = subprocess.run(command, env=setting.cluster.env(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotEvenCalm(done.stdout + done.stderr)
