"""One method called on many inputs in a few child processes: results in order; a crash costs one input.

Each child works on several inputs at once. When it dies or exceeds its time, each of these inputs is tried again by
itself, and only one that fails again is refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from trackmill.pipeline.isolation.child import Answer, Call
from trackmill.pipeline.isolation.limits import LimitReached, Limits
from trackmill.pipeline.isolation.process import CallFailed, Child, give_back, ready_child
from trackmill.pipeline.isolation.remote_object import RemoteObject
from trackmill.pipeline.storage.secrets.signed_urls import signatures_in
from trackmill.schemas.errors import InputError


@dataclass(frozen=True, slots=True)
class Refused:
    """Stands for the result of an input that took too much memory or time, or ended its process."""

    reason: str


def call_each(
    factory: Callable[..., Any],
    args: tuple[Any, ...],
    method: str,
    inputs: Sequence[Any],
    limits: Limits,
    *,
    children: int,
    at_once: int,
) -> Iterator[Any]:
    """Results of a method for every input, in the order given; `Refused` in place of one that failed.

    Args:
        factory, args: builds the object of each child, see `trackmill.pipeline.isolation.remote_object.RemoteObject`.
        method: called with one input.
        inputs: they are pickled.
        limits: of each call.
        children: processes.
        at_once: calls in one of them.

    Raises:
        ChildFailed: no child could be started.
    """
    results: list[Future[Any]] = [Future() for _ in inputs]
    group = _Group(factory, args, method, limits, at_once)
    left = iter(range(len(inputs)))
    with ThreadPoolExecutor(children, thread_name_prefix="remote") as pool:
        # `left` is one iterator for all: a thread that is free takes the next one. `next` gives each only once.
        work = [pool.submit(group.work, left, inputs, results) for _ in range(children)]
        try:
            for result in results:
                yield _first(result, work)
        finally:
            group.stop(results)


def _first(result: Future[Any], work: Sequence[Future[None]]) -> Any:
    """The result, or the error of the threads if all of them have failed."""
    while True:
        try:
            return result.result(timeout=0.2)
        except TimeoutError:
            if all(each.done() for each in work) and not result.done():
                for each in work:
                    each.result()
                raise


def _result(answer: Answer) -> Any:
    if answer.raised is not None or answer.failed:
        return Refused(answer.failed or str(answer.raised))
    return answer.value


class _Group:
    """What the threads share; each thread serves one child."""

    def __init__(
        self, factory: Callable[..., Any], args: tuple[Any, ...], method: str, limits: Limits, at_once: int
    ) -> None:
        self._factory = factory
        self._args = args
        self._method = method
        self._limits = limits
        self._at_once = at_once
        self._stopped = False
        self._children: set[Child] = set()

    def stop(self, results: Sequence[Future[Any]]) -> None:
        """Stop: the remaining results are not wanted."""
        self._stopped = True
        if not all(result.done() for result in results):
            for child in self._children.copy():
                child.interrupt()

    def work(self, left: Iterator[int], inputs: Sequence[Any], results: Sequence[Future[Any]]) -> None:
        """Keep one child busy until nothing is left."""
        child: Child | None = None
        in_hand: dict[int, float] = {}  # by place: when it was sent
        try:
            while not self._stopped:
                while len(in_hand) < self._at_once and (place := next(left, None)) is not None:
                    in_hand[place] = time.monotonic()
                    child = child or self._new_child()
                    try:
                        child.send(Call(place, self._method, (inputs[place],), signatures_in(inputs[place])))
                    except LimitReached:
                        break
                if child is None or not in_hand:
                    break
                try:
                    answer = child.receive(self._seconds_left(in_hand))
                except LimitReached:
                    self._children.discard(child)
                    child = None
                    self._alone(in_hand, inputs, results)
                    continue
                in_hand.pop(answer.number)
                results[answer.number].set_result(_result(answer))
        finally:
            if child is not None:
                self._children.discard(child)
                if in_hand:
                    child.kill()
                else:
                    give_back(child)

    def _alone(self, in_hand: dict[int, float], inputs: Sequence[Any], results: Sequence[Future[Any]]) -> None:
        remote = RemoteObject(self._factory, self._args, self._limits)
        try:
            for place in list(in_hand):
                if self._stopped:
                    return
                try:
                    result = remote.call(self._method, inputs[place])
                except (InputError, OSError, CallFailed) as error:
                    result = Refused(str(error))
                in_hand.pop(place)
                results[place].set_result(result)
        finally:
            remote.close()

    def _new_child(self) -> Child:
        child = ready_child(self._factory, self._args, self._limits, self._at_once)
        self._children.add(child)
        return child

    def _seconds_left(self, in_hand: dict[int, float]) -> float | None:
        if not self._limits.call_seconds:
            return None
        return max(0.001, min(in_hand.values()) + self._limits.call_seconds - time.monotonic())
