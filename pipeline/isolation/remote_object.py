"""An object in a child process, called from the parent: one call at a time, and a new child after one has died."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol

from trackmill.pipeline.isolation.child import Call
from trackmill.pipeline.isolation.limits import LimitReached, Limits, too_much_memory
from trackmill.pipeline.isolation.process import CallFailed, Child, ChildKilled, borrow, give_back, ready_child
from trackmill.pipeline.storage.secrets.signed_urls import signatures_in


class Calls(Protocol):
    """Calls methods of an object, in this process or in a child."""

    def call(self, method: str, *args: Any) -> Any:
        """What the method returns."""

    def ask(self, method: str, *args: Any) -> None:
        """Begin a call and return at once; `answer` gives its result."""

    def answer(self) -> Any:
        """The result of what was asked last."""

    def close(self) -> None:
        """Release the object; another call builds a new one."""


class RemoteObject:
    """Calls methods of an object that lives in a child process.

    The object loses its state when a call reaches a limit: the next call builds a new one.

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
        self._is_asked = False
        self._calls = 0

    def start(self) -> None:
        """Let the child begin to build the object, and return at once.

        Raises:
            ChildFailed: no child could be started.
        """
        if self._child is None:
            child = borrow()
            with contextlib.suppress(ChildKilled):  # the first call takes another one
                child.begin(self._factory, self._args, self._limits)
                self._child, self._is_ready = child, False

    def call(self, method: str, *args: Any) -> Any:
        """What the method returns; arguments and result are pickled.

        Raises:
            LimitReached: (a subclass) it took too much memory or time, or its process died.
            InputError, OSError: what the method raised.
            CallFailed: the method raised another error.
            ChildFailed: no child could be started, or the object could not be built.
        """
        self.ask(method, *args)
        return self.answer()

    def ask(self, method: str, *args: Any) -> None:
        """Begin a call; see `call`."""
        child = self._ready_child()
        self._calls += 1
        self._is_asked = True
        with contextlib.suppress(LimitReached):  # `answer` says so
            child.send(Call(self._calls, method, args, signatures_in(args)))

    def answer(self) -> Any:
        """The result of what was asked last; see `call`."""
        assert self._child is not None and self._is_asked, "nothing was asked"
        self._is_asked = False
        try:
            answer = self._child.receive(self._limits.call_seconds or None)
        except LimitReached:
            self._child = None
            raise
        if answer.raised is not None:
            raise answer.raised
        if answer.failed:
            raise CallFailed(answer.failed)
        return answer.value

    def interrupt(self) -> None:
        """End a call that another thread is waiting for: it raises `LimitReached` there."""
        if self._child is not None:
            self._child.interrupt()

    def close(self) -> None:
        """Release the object; another call builds a new one."""
        child, self._child = self._child, None
        if child is None:
            return
        if self._is_ready and not self._is_asked:
            give_back(child)
        else:
            child.kill()
        self._is_asked = False

    def _ready_child(self) -> Child:
        if self._child is None or not self._is_ready:
            begun, self._child = self._child, None
            self._child = ready_child(self._factory, self._args, self._limits, begun=begun)
            self._is_ready = True
        return self._child


class LocalObject:
    """The same calls on an object in this process, without limits: for a debugger, and for `memory://` files."""

    def __init__(self, factory: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._factory = factory
        self._args = args
        self._held: Any = None
        self._asked: tuple[str, tuple[Any, ...]] | None = None

    def call(self, method: str, *args: Any) -> Any:
        """What the method returns.

        Raises:
            MemoryLimit: this process has no memory left.
            Exception: what the method raised.
        """
        self._held = self._held or self._factory(*self._args)
        try:
            return getattr(self._held, method)(*args)
        except MemoryError:
            raise too_much_memory(Limits()) from None

    def ask(self, method: str, *args: Any) -> None:
        """Remember a call."""
        self._asked = method, args

    def answer(self) -> Any:
        """Do what was asked last; see `call`."""
        assert self._asked is not None, "nothing was asked"
        (method, args), self._asked = self._asked, None
        return self.call(method, *args)

    def close(self) -> None:
        """Release the object; another call builds a new one."""
        held, self._held = self._held, None
        if close := getattr(held, "close", None):
            close()
