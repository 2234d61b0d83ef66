"""What a worker does once, before its first unit: compare its libraries with the driver's, load its models."""

from __future__ import annotations

import socket

from trackmill.models.registry import proposer_class
from trackmill.pipeline.mining.fingerprint import pixel_libraries
from trackmill.pipeline.mining.miner import Miner
from trackmill.pipeline.mining.proposer import build_proposer
from trackmill.pipeline.mining.reading import ItemReader
from trackmill.pipeline.mining.settings import MineConfig, mine_config, proposer_settings
from trackmill.pipeline.mining.unit import LibrariesDiffer, MineJob
from trackmill.pipeline.sidecars.making import Maker
from trackmill.pipeline.workers.threads import limit_threads


def start_miner(job: MineJob) -> Miner:
    """A miner with its proposer, ready for its first unit.

    Raises:
        LibrariesDiffer: this machine would write other bytes than the driver promised.
        Exception: what building the proposer raises, see `trackmill.pipeline.mining.proposer.build_proposer`, or the
            producer of a sidecar, see `trackmill.pipeline.sidecars.making.Maker`.
    """
    config = mine_config(job.config, "job")
    check_libraries(job.libraries, config)
    reader = ItemReader(config)
    reader.start()  # gets ready while models are loaded here
    try:
        proposer = build_proposer(config.proposer, proposer_settings(config))
        limit_threads(config.run.threads)
        return Miner(job, proposer, [Maker(sidecar) for sidecar in job.sidecars], reader)
    except BaseException:
        reader.close()
        raise


def check_libraries(expected: dict[str, str], config: MineConfig) -> None:
    """Refuse to work where another version of a library would write other bytes than the driver promised.

    Raises:
        LibrariesDiffer: names each one.
    """
    here = pixel_libraries() | proposer_class(config.proposer).implementation(proposer_settings(config))
    wrong = [
        f"{name} {here[name]} (driver: {expected[name]})"
        for name in sorted(here.keys() & expected.keys())
        if here[name] != expected[name]
    ]
    if wrong:
        raise LibrariesDiffer(
            f"worker {socket.gethostname()} has {', '.join(wrong)}; use one image for the whole cluster"
        )
