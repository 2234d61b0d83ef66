"""What ranks tell each other, and what whoever is left says when another one has ended."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from trackmill.pipeline.console.exit_codes import ExitCode, exit_code_of
from trackmill.pipeline.training.ranks import OtherRankFailed, on_first_rank, telling_who_is_gone


@pytest.mark.parametrize("alone", [0, 1])
def test_whoever_is_left_says_that_another_has_ended(tmp_path: Path, alone: int) -> None:
    context = multiprocessing.start_processes(
        _rank, args=(str(tmp_path), alone), nprocs=2, start_method="forkserver", join=False
    )
    for process in context.processes:
        process.join(300)
    said = (tmp_path / "said").read_text()
    assert said.startswith("another rank has ended") and "from the last checkpoint (" in said
    assert [process.exitcode for process in context.processes] == ([0, 9] if alone == 0 else [9, 0])


def _rank(rank: int, folder: str, alone: int) -> None:
    """Both meet once; then one ends as if it were killed, and the other waits for it."""
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(minutes=4))
    assert on_first_rank(lambda: "together") == "together"
    if rank != alone:
        os._exit(9)
    try:
        with telling_who_is_gone():
            for _ in range(1000):  # what the dead one has sent before is still read
                dist.all_reduce(torch.ones(1000))
    except OtherRankFailed as error:
        assert exit_code_of(error) is ExitCode.FAILED
        Path(folder, "said").write_text(str(error))


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="closed by peer") as raised, telling_who_is_gone():
        raise RuntimeError("a socket of somebody's own: closed by peer")
    assert type(raised.value) is RuntimeError
    with pytest.raises(dist.DistBackendError, match="invalid usage"), telling_who_is_gone():
        raise dist.DistBackendError("NCCL error: invalid usage")
