"""An object that lives in a child process, as seen from here: one call at a time, a new child after each death."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trackmill.pipeline.isolation.child import Call
from trackmill.pipeline.isolation.limits import LimitReached, Limits
from trackmill.pipeline.isolation.process import CallFailed, Child, ChildFailed, borrow, give_back
from trackmill.pipeline.storage.signed import signatures_in


class Apart:
    """Calls methods of an object that a child process holds.

    What the object remembers from one call to the next is lost where a call is ended: the next one builds it anew.

    Args:
        factory: gives the object; importable by its name.
        args: of `factory`; they are pickled.
        limits: of each call.
    """

    def __init__(self, factory: Callable[..., Any], args: tuple[Any, ...], limits: Limits) -> None:
        self._factory = factory
        self._args = args
        self._limits = limits
        self._child: Child | None = None
        self._is_ready = False
        self._calls = 0

    def start(self) -> None:
        """Let the child build the object now, while other things are done here.

        Raises:
            ChildFailed: no child could be started.
        """
        if self._child is None:
            self._child, self._is_ready = borrow(), False
            self._child.begin(self._factory, self._args, self._limits)

    def call(self, method: str, *args: Any) -> Any:
        """What the method returns; arguments and result are pickled.

        Raises:
            LimitReached: (a subclass) it took too much memory or time, or its process died.
            ChildFailed: no child could be started, or the object could not be built.
            CallFailed: the method raised an error.
        """
        child = self._ready_child()
        self._calls += 1
        try:
            child.send(Call(self._calls, method, args, signatures_in(args)))
            answer = child.receive(self._limits.seconds or None)
        except LimitReached:
            self._child = None
            raise
        if answer.failed:
            raise CallFailed(answer.failed)
        return answer.value

    def _ready_child(self) -> Child:
        self.start()
        assert self._child is not None
        if not self._is_ready:
            try:
                self._child.wait_until_ready()
            except ChildFailed:
                self._child.kill()
                self._child = None
                raise
            self._is_ready = True
        return self._child

    def interrupt(self) -> None:
        """End a call that another thread is waiting for: it raises `LimitReached` there."""
        if self._child is not None:
            self._child.interrupt()

    def close(self) -> None:
        """Let the object go; another `call` would build it anew."""
        child, self._child = self._child, None
        if child is None:
            return
        if self._is_ready:
            give_back(child)
        else:
            child.kill()
