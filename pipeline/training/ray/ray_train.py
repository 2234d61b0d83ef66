"""Ray Train around the loop: a worker for each rank, and all of them anew, from our own checkpoint, when one fails.

Ray places the ranks, makes the process group, notices deaths and starts over. It keeps no state of a run: workers look
for the newest whole checkpoint under the output themselves, so the same command goes on wherever it is given.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import Any, TextIO, cast

import ray
import ray.train
from ray.exceptions import RayActorError, RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trackmill.pipeline.console.exit_codes import ExitCode
from trackmill.pipeline.ray_cluster import start_ray
from trackmill.pipeline.storage.credentials import scrub, storage_environment
from trackmill.pipeline.storage.urls import is_local
from trackmill.pipeline.training.launch import RunFailed
from trackmill.pipeline.training.loop import TrainingResult
from trackmill.pipeline.training.rank_process import COLLECTIVE_TIMEOUT
from trackmill.pipeline.training.ray.ray_worker import Desk, Rank, RankFailed
from trackmill.pipeline.training.recipe import Recipe
from trackmill.pipeline.training.stopping import stop_on_signals
from trackmill.schemas.config import ConfigError
from trackmill.schemas.errors import StorageError

_TICK_S = 0.5
_ONE_NOTICE_S = 120.0
"""Deaths of ranks that come so soon after each other belong to one machine that is taken back."""
_TOLD = ("MLFLOW_", "WANDB_")
"""Variables of telemetry that ranks need beside those of storage."""
_SWITCHES = {
    # Ranks keep their folder: a recipe may name files by relative paths.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # What ranks print reaches the terminal by another way, `ray_worker.Wire`.
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
}


def run_ray(
    recipe: Recipe,
    output: str,
    *,
    num_workers: int,
    device: str = "auto",
    resume: str = "auto",
    allowed: Sequence[str] = (),
    stream: TextIO | None = None,
) -> TrainingResult:
    """Train on `num_workers` ranks of the cluster of `RAY_ADDRESS`, or of a Ray of our own on this machine.

    SIGTERM and Ctrl-C let the ranks finish their step, save and return; a second one ends them at once. When this
    process is killed, Ray ends the ranks with it.

    Args:
        recipe: settings.
        output: root of the run, spelt in full; on a cluster of several machines all must reach it.
        num_workers: ranks; never fewer, so a machine that is lost is waited for.
        device: `cpu`; `cuda`: a GPU for each rank; `auto`: likewise if the cluster has any.
        resume: `auto` or the URL of a checkpoint.
        allowed: what may differ from the checkpoint, see `changes.check_fits`.
        stream: gets what rank 0 says, and what becomes of the ranks; stderr.

    Raises:
        ConfigError: a mistake of the settings, found here or by a rank.
        StorageError: a rank could not read or write, also after several attempts.
        RankBug: a rank met a bug.
        RayUnavailable: Ray could not be started, or its cluster does not answer.
        RunFailed: a rank failed for good, or more often than `ray.max_failures` allows.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {device}: with Ray it is auto, cpu or cuda; Ray gives each rank a GPU of its own")
    for name, value in _SWITCHES.items():
        os.environ.setdefault(name, value)
    started = not ray.is_initialized()
    if started:
        start_ray(recipe.ray.start_timeout_s, without="--launcher local")
    try:
        return _run(recipe, output, num_workers, device, resume, allowed, stream or sys.stderr)
    finally:
        if started:
            ray.shutdown()


def _run(
    recipe: Recipe,
    output: str,
    num_workers: int,
    device: str,
    resume: str,
    allowed: Sequence[str],
    stream: TextIO,
) -> TrainingResult:
    use_gpu = device == "cuda" or (device == "auto" and ray.cluster_resources().get("GPU", 0) > 0)
    each = {"CPU": recipe.ray.cpus_per_worker} | ({"GPU": 1.0} if use_gpu else {})
    for line in _notices(recipe, output, each, num_workers):
        print(line, file=stream, flush=True)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = Desk  # Ray has made more of the class than its annotations say
    desk = actor.options(scheduling_strategy=here).remote()
    rank = Rank(
        values=recipe.model_dump(),
        output=output,
        resume=resume,
        allowed=tuple(allowed),
        use_gpu=use_gpu,
        desk=desk,
        terminal=stream.isatty(),
        folder=_folder(),
        environment=storage_environment() | {k: v for k, v in os.environ.items() if k.startswith(_TOLD)},
    )
    # Ray writes down what was reported to it, and would go on from there. Our checkpoints are the only ones, so it gets
    # a folder that no other run ever sees; only its controller writes there, which is on this machine.
    with tempfile.TemporaryDirectory(prefix="trackmill-ray-") as scratch, stop_on_signals() as should_stop:
        trainer = TorchTrainer(
            cast("Callable[[], None]", rank),  # what it returns reaches us as `return_value`
            torch_config=TorchConfig(
                backend="nccl" if use_gpu else "gloo", timeout_s=int(COLLECTIVE_TIMEOUT.total_seconds())
            ),
            scaling_config=ScalingConfig(num_workers=num_workers, use_gpu=use_gpu, resources_per_worker=each),
            run_config=RunConfig(
                name=recipe.name or "train",
                storage_path=scratch,
                failure_config=FailureConfig(max_failures=-1),  # `_Failures` counts
                callbacks=[cast(Any, _Failures(desk, recipe.ray.max_failures))],
            ),
        )
        try:
            result: TrainingResult = _fit(trainer, desk, should_stop, stream).return_value
        except WorkerGroupError as error:
            raise _for_people(reason(error.worker_failures)) from None
        except ControllerError as error:
            failure = error.controller_failure
            if isinstance(failure, RankFailed):
                raise _for_people(failure) from None
            raise RunFailed(scrub(f"Ray Train gave up: {type(failure).__name__}: {failure}")) from None
        except TrainingFailedError as error:
            raise RunFailed(scrub(str(error))) from None
    return result


def _notices(recipe: Recipe, output: str, each: Mapping[str, float], num_workers: int) -> Iterator[str]:
    """What people should know before they wait.

    Raises:
        ConfigError: this machine, where nothing can join, will never do.
    """
    have = ray.cluster_resources()
    short = [
        f"{num_workers * number:g} {name}s, of which there are {have.get(name, 0):g}"
        for name, number in each.items()
        if num_workers * number > have.get(name, 0)
    ]
    if short and not os.environ.get("RAY_ADDRESS"):
        raise ConfigError(
            f"{num_workers} ranks need {' and '.join(short)}: lower --workers or ray.cpus_per_worker, which may be "
            "a fraction" + ("; or give --device cpu" if "GPU" in each else "")
        )
    if short:
        yield f"{num_workers} ranks need {' and '.join(short)} by now: waiting for machines to join"
    nodes = sum(bool(node["Alive"]) for node in ray.nodes())
    local = [url for url in (output, recipe.data.url) if is_local(url)]
    if nodes > 1 and local:
        named = " and ".join(local)
        yield f"the cluster has {nodes} machines: {named} must be the same shared folder on all that train"


def _folder() -> str:
    # Of a submitted job it is a copy that Ray may take away, where two of its nodes share a machine.
    with contextlib.suppress(FileNotFoundError):
        return os.getcwd()
    return ""


def _fit(trainer: TorchTrainer, desk: Any, should_stop: Callable[[], bool], stream: TextIO) -> Any:
    """Run Ray Train in a thread, since this one passes words on and is the one that signals reach."""
    fitted: Future[ray.train.Result] = Future()

    def fit() -> None:
        try:
            fitted.set_result(trainer.fit())
        except BaseException as error:
            fitted.set_exception(error)

    threading.Thread(target=fit, name="Ray Train", daemon=True).start()
    stopping = False
    while True:
        done = fitted.done()  # looked at before, so that the last words are passed on as well
        with contextlib.suppress(RayError):
            for text in ray.get(desk.take.remote()):
                stream.write(text)
            stream.flush()
        if done:
            return fitted.result()
        if should_stop():
            if not stopping:
                print("asking the ranks to save and stop; once more stops at once", file=stream, flush=True)
            stopping = True
            desk.stop.remote()  # each time: a desk that was started anew has forgotten it
        wait([fitted], timeout=_TICK_S)


class RankBug(Exception):
    """A rank met a bug; the rank's own traceback is a note of it, so that it reaches the log file of the job."""


def _for_people(failure: RankFailed) -> Exception:
    if failure.code is None:
        bug = RankBug(failure.text)
        bug.add_note(failure.traceback)
        return bug
    kinds: dict[ExitCode, type[Exception]] = {ExitCode.MISTAKE: ConfigError, ExitCode.STORAGE: StorageError}
    return kinds.get(failure.code, RunFailed)(failure.text)


def reason(failures: Mapping[int, BaseException]) -> RankFailed:
    """Of the failures of an attempt, by rank, the one that explains the others, with its rank in the text.

    A dead process explains the broken connections of the other ranks; an error that is final explains all.
    """
    named = {rank: _named(rank, error) for rank, error in failures.items()}

    def order(rank: int) -> tuple[bool, bool, bool, int]:
        own = isinstance(failures[rank], RankFailed)
        return not named[rank].final, named[rank].collateral, own, rank

    return named[min(named, key=order)]


def _named(rank: int, error: BaseException) -> RankFailed:
    if isinstance(error, RankFailed):
        return RankFailed(f"rank {rank}: {error.text}", error.final, error.code, error.collateral, error.traceback)
    if isinstance(getattr(error, "health_check_failure", error), RayActorError):
        return RankFailed(f"rank {rank}: its process is gone (killed, out of memory, or its machine was lost)")
    first = str(error).strip().partition("\n")[0]
    return RankFailed(scrub(f"rank {rank}: {type(error).__name__}: {first}"))


class _Failures(UserCallback):
    """Decides in Ray's controller whether the ranks are worth another try, and says so.

    Ray's own count never goes back, so a long run on machines that fail now and then would end at some time whatever it
    has done. Here a checkpoint that was saved since makes up for all failures before it.
    """

    def __init__(self, desk: Any, allowed: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._desk, self._allowed, self._clock = desk, allowed, clock
        self._failures = 0
        self._taken_back = -math.inf

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """A checkpoint was saved."""
        self._failures = 0

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raises what is final: an error of a callback ends the run, one of a worker begins it anew."""
        failure = reason(worker_exceptions)
        if failure.final:
            raise failure
        if any(_taken_back(error) for error in worker_exceptions.values()):
            # Ray looks at the ranks again and again until the last of them has ended.
            if self._clock() > self._taken_back + _ONE_NOTICE_S:
                self._say("the cluster takes a machine back: all ranks start again from the last checkpoint elsewhere")
            self._taken_back = self._clock()
            return
        self._failures += 1
        if 0 <= self._allowed < self._failures:
            raise RankFailed(
                f"{failure.text}; the ranks failed {self._failures} times without a new checkpoint in between, more "
                f"than ray.max_failures = {self._allowed} allows",
                code=failure.code,
                traceback=failure.traceback,
            )
        times = f"{self._failures}" + (f" of {self._allowed}" if self._allowed > 0 else "")
        self._say(f"{failure.text}\nall ranks start again from the last checkpoint (time {times} since it was saved)")

    def _say(self, text: str) -> None:
        self._desk.say.remote(f"{text}\n")


def _taken_back(error: Exception) -> bool:
    """Whether a rank died because the cluster took its machine back with notice."""
    death = getattr(error, "health_check_failure", error)
    return isinstance(death, RayActorError) and bool(death.preempted)
