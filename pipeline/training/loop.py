"""The loop: batches in, steps, rows of telemetry and checkpoints out. It knows nothing of what is learnt.

A step is a pure function of what is stored: the weights and the optimiser of the step before, the seed, and the step's
number. So a run that was killed goes on as if nothing had been.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from trackmill.pipeline.loader.catalog import Catalog
from trackmill.pipeline.loader.loader import ShardLoader
from trackmill.pipeline.loader.order import share
from trackmill.pipeline.loader.sidecar_rows import MADE_BY, check_columns
from trackmill.pipeline.tasks.base import Task, TrainingModule
from trackmill.pipeline.tasks.outside_code import outside_code
from trackmill.pipeline.training import changes, checkpoint, saved_checkpoint
from trackmill.pipeline.training.ema import Ema
from trackmill.pipeline.training.engines import make_engine
from trackmill.pipeline.training.health import Health
from trackmill.pipeline.training.ranks import largest_of_ranks, num_ranks, on_first_rank, this_rank
from trackmill.pipeline.training.recipe import Recipe, effective, stored_recipe
from trackmill.pipeline.training.result import fill_network, frozen_tensors, write_result
from trackmill.pipeline.training.saved_checkpoint import SavedCheckpoint
from trackmill.pipeline.training.schedule import learning_rate
from trackmill.pipeline.training.steps import StepRows, peak_memory, run_step
from trackmill.pipeline.training.stopping import NOT_ASKED, Stopping, StopWaiting, seconds_asked
from trackmill.pipeline.training.telemetry import Telemetry
from trackmill.pipeline.training.watchdog import Watchdog

EVALUATION_PATIENCE = 20.0
"""How much longer than a step an evaluation may take before the watchdog speaks up."""
SAVING_PATIENCE = 5.0
_SAVING_MARGIN = 1.2
"""A save may take so much longer than the one before."""


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """How a call of `train` ended.

    Args:
        step: steps done by now, earlier runs included.
        total_steps: steps of the whole run.
        interrupted: it was stopped before; the same command goes on.
        result: URL of the weights, empty while interrupted.
        metrics: what the last evaluation gave.
    """

    step: int
    total_steps: int
    interrupted: bool
    result: str
    metrics: dict[str, float]


def total_steps(recipe: Recipe) -> int:
    """Steps of a run: those of the schedule, or fewer if `max_steps` says so."""
    return min(recipe.schedule.steps, recipe.max_steps or recipe.schedule.steps)


def data_identity(catalog: Catalog, task: Task) -> dict[str, Any]:
    """What tells the data of a run from other data, wherever it lies: the samples, and the sidecars that a task reads.

    Raises:
        SidecarError: the data set has no such sidecar; says which command makes it. Or it lacks a column.
    """
    identity = {"fingerprint": catalog.fingerprint, "samples": len(catalog)}
    named = task.sidecars()
    sidecars = {}
    for name in named:
        columns = tuple(named[name]) if isinstance(named, Mapping) else ()
        about = catalog.sidecars.get(name, MADE_BY.get(columns, "")).about
        check_columns(name, [column.name for column in about.columns], columns)
        sidecars[name] = about.fingerprint
    return identity | ({"sidecars": sidecars} if sidecars else {})


def train(
    recipe: Recipe,
    task: Task,
    catalog: Catalog,
    output: str,
    device: torch.device,
    *,
    module: TrainingModule | None = None,
    start: SavedCheckpoint | None = None,
    history: Sequence[Mapping[str, Any]] = (),
    should_stop: Callable[[], bool] = lambda: False,
    on_checkpoint: Callable[[str, int], None] | None = None,
) -> TrainingResult:
    """Train to the end, or until `should_stop`. Every rank calls it with the same arguments.

    Args:
        recipe: settings.
        task: what is learnt.
        catalog: the data.
        output: root of the run.
        device: of this rank.
        module: what `task.build` gave, where that was called already; it is trained, so it cannot be used again.
        start: whole checkpoint to go on from, the same on all ranks; None to begin.
        history: settings that were changed during the run, see `changes.history_of`.
        should_stop: called after every step; where it is true on one rank, all finish the step, save and return. A
            `Stopping` knows how long ago it was asked: where `checkpoint.grace_s` would be over before the step were
            saved, it is not, and the last checkpoint counts.
        on_checkpoint: called on every rank after each save with its URL and step. Here and nowhere else Ray gets its
            report: that waits until the controller has seen the one before, and all ranks must report equally often.

    Raises:
        NonFinite: loss or gradients were no numbers for too long.
        NothingLearnt: step after step there was nothing to learn from.
        ValueError: the settings do not fit the data, the number of ranks or each other.
        OSError: storage failed for good.
    """
    with contextlib.ExitStack() as stack:
        run = _Run(recipe, task, catalog, output, device, module, start, history, stack)
        return run.to_the_end(should_stop, on_checkpoint)


class _Stopped(Exception):
    """In the middle of an evaluation: somebody wants to stop."""


class _Run:
    """What a run holds while it lasts; closed by `stack` in the reverse order."""

    def __init__(
        self,
        recipe: Recipe,
        task: Task,
        catalog: Catalog,
        output: str,
        device: torch.device,
        module: TrainingModule | None,
        start: SavedCheckpoint | None,
        history: Sequence[Mapping[str, Any]],
        stack: contextlib.ExitStack,
    ) -> None:
        self.recipe, self.task, self.catalog, self.output, self.device = recipe, task, catalog, output, device
        self.rank, self.world = this_rank(), num_ranks()
        self.step = start.step if start else 0
        self.metrics: dict[str, float] = {}
        on_first_rank(lambda: len(checkpoint.sweep(output)))
        self.watchdog = stack.enter_context(Watchdog(recipe.watchdog, self.rank, output, world=self.world))
        self.evaluation = task.evaluation()
        module = module if module is not None else task.build(recipe.seed)
        self.code = outside_code([type(task), type(task.make_example()), *(type(part) for part in module.modules())])
        self.frozen_digest = on_first_rank(lambda: checkpoint.frozen_digest(module))
        # Where the engine puts the weights elsewhere or spreads them over ranks, rank 0 keeps what is in no checkpoint,
        # so that a network to evaluate needs no file again.
        self.frozen = frozen_tensors(module) if self.rank == 0 else {}
        self.engine = make_engine(module.to(device), recipe.engine, recipe.optim, device, self.rank, self.world)
        stack.callback(self.engine.close)
        self.ema = Ema(self.engine.module, recipe.ema) if recipe.ema.decay else None
        if start is not None:
            self.watchdog.stage("loading the checkpoint", self.step)
            changes.check_frozen(start, self.frozen_digest)
            state, averaged = saved_checkpoint.read_state(start)
            self.engine.load(state)
            if self.ema is not None and averaged is not None:
                self.ema.load(averaged)
        self.loader = ShardLoader(
            catalog,
            recipe.data.model_copy(
                update={"streams": recipe.data.streams or saved_checkpoint.stored_streams(start, recipe.micro_batch)}
            ),
            batch_size=recipe.micro_batch,
            make_example=task.make_example(),
            collate=task.collate,
            rank=self.rank,
            world=self.world,
            seed=recipe.seed,
            batches_done=self.step * recipe.optim.accumulate,
            ahead=device.type == "cuda",
        )
        stack.callback(self.loader.close)
        self.rows = StepRows(device)
        self.health = Health(
            recipe.max_nonfinite,
            recipe.max_skipped,
            skipped=max(0, start.step - start.document.engine.steps) if start else 0,
            needed=task.needed,
            samples=self._samples_of,
        )
        self.first_step, self.owed = self.step, False
        self.telemetry = Telemetry(
            recipe.telemetry,
            output,
            total_steps=total_steps(recipe),
            start_step=self.step,
            samples_per_step=recipe.data.batch_size,
            config=stored_recipe(recipe),
            rank=self.rank,
            ranks=self.world,
        )
        self.history = history
        for line in changes.notes_of(start, history, self.world, self.code, output) if start else ():
            self.telemetry.event(line)
        for line in self.loader.notices:
            self.telemetry.event(line)
        self.bad = 0
        self.status = "stopped"
        self._unmeasured = False
        self._saved = start.step if start else 0  # the step that the newest checkpoint is of
        self._save_s = 0.0  # what it took; 0: not known yet
        stack.push(lambda kind, error, trace: self.telemetry.close("failed" if kind else self.status))

    def to_the_end(
        self, should_stop: Callable[[], bool], on_checkpoint: Callable[[str, int], None] | None
    ) -> TrainingResult:
        recipe, total = self.recipe, total_steps(self.recipe)
        batches = iter(self.loader)
        stopped = False
        if self.step and self._evaluates(last=self.step == total):
            # Saved, and perhaps killed before its evaluation was done.
            measured = on_first_rank(lambda: self.telemetry.evaluated(self.step))
            if measured is None:
                stopped = not self._evaluate(should_stop)
            else:
                self.metrics.update(measured)
        while self.step < total and not stopped:
            try:
                self._advance(self._broken_off_by(should_stop, batches))
            except StopWaiting:
                self.loader.batches_done = self.step * recipe.optim.accumulate  # a batch that just came is not used
                self._flush_rows()
                self._save_in_time(seconds_asked(should_stop), on_checkpoint)
                stopped = True
                break
            # A signal may reach ranks in different steps; were each to obey alone, the others would hang.
            asked = largest_of_ranks(seconds_asked(should_stop), self.device)
            stopped = asked > NOT_ASKED
            last = stopped or self.step == total
            save = last or self.owed or self.step % recipe.checkpoint.every == 0
            evaluate = self._evaluates(last=self.step == total)
            if last or save or evaluate or self.step % recipe.telemetry.every == 0:
                self._flush_rows()
            # After a step without numbers not the usual checkpoint, which would push out the one before the trouble
            # began, but the one that a stop wants: such a step has changed nothing.
            self.owed = save and not last and not self.health.healthy
            if stopped and self.step < total:
                self._save_in_time(asked, on_checkpoint)
            elif save and not self.owed:
                self._save(on_checkpoint)
            if evaluate:
                # After the save: an evaluation that fails, for a wrong file say, costs no step.
                try:
                    stopped = not self._evaluate(should_stop) or stopped
                except Exception:
                    if self.health.healthy and not save:
                        self._save(on_checkpoint)
                    raise
                if stopped and (self.owed or not save):
                    self._save_in_time(on_first_rank(lambda: seconds_asked(should_stop)), on_checkpoint)
        done = self.step >= total and not (stopped and self._unmeasured)
        if done:
            news = self.health.at_the_end(whole=self.first_step == 0)
            if news:
                self.telemetry.event(news)
        result = self._finish() if done else ""
        self.status = "finished" if done else "stopped"
        return TrainingResult(
            step=self.step, total_steps=total, interrupted=not done, result=result, metrics=dict(self.metrics)
        )

    def _broken_off_by(self, should_stop: Callable[[], bool], batches: Iterator[Any]) -> Iterator[Any]:
        """The batches of one step; of a rank that is alone, a signal breaks off the wait for the first of them."""
        if self.world > 1 or not isinstance(should_stop, Stopping):
            return batches

        def watched() -> Iterator[Any]:
            with should_stop.may_break_off():
                first = next(batches)
            yield first
            while True:  # not `yield from`: what is left of this generator would close the loader's when it goes
                yield next(batches)

        return watched()

    def _save_in_time(self, asked_s: float, on_checkpoint: Callable[[str, int], None] | None) -> None:
        """Save before a stop, if that can be done within what is left of `checkpoint.grace_s`.

        A save that the kill ends would leave nothing behind either, but it would keep others from ending in order.
        """
        grace_s = self.recipe.checkpoint.grace_s
        if self.step == self._saved:
            return

        def in_time() -> bool:
            return not grace_s or not self._saved or asked_s + _SAVING_MARGIN * self._save_s <= grace_s

        if on_first_rank(in_time):
            self._save(on_checkpoint)
            return
        self.telemetry.event(
            f"step {self.step:,} is not saved: the signal came {asked_s:.0f} s ago and a save takes "
            f"{self._save_s:.0f} s, more than checkpoint.grace_s = {grace_s:g} leaves; the checkpoint of step "
            f"{self._saved:,} counts, and {self.step - self._saved:,} steps are taken again"
        )

    def _advance(self, batches: Iterator[Any]) -> None:
        recipe = self.recipe
        began, waited = time.perf_counter(), self.loader.wait_s
        lr = learning_rate(self.step, recipe.schedule, recipe.optim.lr)
        kept, scale = self.engine.kept_statistics, self.engine.loss_scale
        losses, norm = run_step(
            self.engine,
            batches,
            seed=recipe.seed,
            step=self.step,
            rank=self.rank,
            accumulate=recipe.optim.accumulate,
            lr=lr,
            stage=self.watchdog.stage,
        )
        self.step += 1
        if self.ema is not None:
            self.ema.update(self.step)
        elapsed = time.perf_counter() - began
        self.rows.add(
            losses,
            {
                "data_wait": (self.loader.wait_s - waited) / elapsed,
                "memory_bytes": peak_memory(self.device),
                "bad_samples": float(self.loader.bad),
                "kept_statistics": float(self.engine.kept_statistics - kept),
            },
            {
                "step": self.step,
                "epoch": self.loader.batches_done / self.loader.order.batches_per_epoch,
                "lr": lr,
                "grad_norm": norm,
                "samples_per_s": recipe.data.batch_size / elapsed,
                **({"loss_scale": scale} if recipe.engine.precision == "float16" else {}),
            },
        )
        self.telemetry.tick(self.step)

    def _flush_rows(self) -> None:
        self.watchdog.stage("telemetry", self.step)
        rows = self.rows.flush()
        self.telemetry.steps([row.numbers for row in rows])
        for row in rows:
            news = self.health.look(row.numbers, row.bad_ranks)
            if news:
                self.telemetry.event(news)
        if self.loader.bad > self.bad:
            self.bad = self.loader.bad
            named = "; ".join(f"{key}: {reason}" for key, reason in self.loader.bad_samples())
            self.telemetry.event(f"rank {self.rank}: {self.bad} bad samples were skipped so far: {named}")

    def _samples_of(self, step: int, ranks: Sequence[int]) -> list[str]:
        """Keys of the samples of a step, counted from 1, on some ranks; on all where none is named."""
        order, parts = self.loader.order, self.recipe.optim.accumulate
        streams = [share(order.streams, self.world, rank, 0)[0] for rank in ranks or range(self.world)]
        batches = range((step - 1) * parts, step * parts)
        samples = [sample for batch in batches for own in streams for sample in order.batch(batch, own)]
        return [self.catalog.key(sample) for sample in dict.fromkeys(samples)]

    def _evaluates(self, last: bool) -> bool:
        return self.evaluation is not None and (last or self.step % self.evaluation.every == 0)

    def _evaluate(self, should_stop: Callable[[], bool]) -> bool:
        """Measure the network; whether that was done, or somebody wants to stop. It is done later then."""
        self.watchdog.stage("evaluation", self.step, patience=EVALUATION_PATIENCE)
        network = self._network()
        measured = on_first_rank(lambda: self._measure(network, should_stop))
        self._unmeasured = measured is None
        if measured is not None:
            self.metrics = measured
            self.telemetry.evaluation(self.step, self.metrics)
        return measured is not None

    def _measure(self, network: nn.Module | None, should_stop: Callable[[], bool]) -> dict[str, float] | None:
        assert self.evaluation is not None and network is not None

        def look(*_: Any) -> None:
            if should_stop():
                raise _Stopped

        # Evaluations last for minutes, more than a scheduler waits between its signal and the kill; what they do is
        # the task's business, but all of them run layers.
        hook = register_module_forward_pre_hook(look)
        try:
            with torch.no_grad():
                measured = self.evaluation.measure(network.to(self.device), self.device)
        except _Stopped:
            return None
        finally:
            hook.remove()
        return {name: float(value) for name, value in measured.items()}

    def _network(self) -> nn.Module | None:
        """A network of its own with the weights as they are now, on rank 0; every rank takes part."""
        state, averaged = self.engine.state(), self._averaged()
        if state is None:
            return None
        module = self.task.build(self.recipe.seed, read_weights=False)
        return fill_network(module, {**self.frozen, **state.parameters, **(averaged or {})})

    def _averaged(self) -> dict[str, Tensor] | None:
        return self.ema.state() if self.ema is not None and self.rank == 0 else None

    def _save(self, on_checkpoint: Callable[[str, int], None] | None) -> None:
        self.watchdog.stage("saving the checkpoint", self.step, patience=SAVING_PATIENCE)
        began = time.monotonic()
        on_first_rank(self.telemetry.sync)  # a run that goes on from here finds the rows of all steps up to it
        kept, digest = effective(self.recipe)
        document = checkpoint.describe_checkpoint(
            step=self.step,
            seed=self.recipe.seed,
            world=self.world,
            loader=self.loader.state(),
            recipe=kept,
            digest=digest,
            data=data_identity(self.catalog, self.task),
            frozen=self.frozen_digest,
            history=self.history,
            code=self.code,
        )
        url = checkpoint.save(
            self.output, self.step, self.engine, self._averaged(), document, self.recipe.checkpoint.keep
        )
        self._saved, self._save_s = self.step, time.monotonic() - began
        if self.rank == 0:
            self.telemetry.checkpoint(self.step, self._save_s, checkpoint.bytes_of(url))
        if on_checkpoint is not None:
            on_checkpoint(url, self.step)

    def _finish(self) -> str:
        self.watchdog.stage("saving the checkpoint", self.step, patience=SAVING_PATIENCE)
        network = self._network()

        def write() -> str:
            assert network is not None
            card = {
                "step": self.step,
                "samples": self.step * self.recipe.data.batch_size,
                "recipe": stored_recipe(self.recipe),
                "data": data_identity(self.catalog, self.task),
                "metrics": self.metrics,
                "averaged": self.ema is not None,
                **({"history": list(self.history)} if self.history else {}),
            }
            return write_result(self.output, network, self.task, card)

        return on_first_rank(write)
