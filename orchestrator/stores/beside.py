"""Requests beside each other, in threads that nobody waits for when all ends: Ctrl-C is not held up by a silent store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TypeVar

A = TypeVar("A")
T = TypeVar("T")


def begun(act: Callable[[], T], *, name: str) -> Future[T]:
    """What `act` returns or raises, once it has. `name` is the thread's."""
    future: Future[T] = Future()
    threading.Thread(target=_settle, args=(future, act), name=name, daemon=True).start()
    return future


def at_once(act: Callable[[A], T], each: Iterable[A], threads: int, *, name: str) -> list[T]:
    """What `act` makes of each, in their order; raises what it raised."""
    asked = [(partial(act, one), Future[T]()) for one in each]
    todo: SimpleQueue[tuple[Callable[[], T], Future[T]]] = SimpleQueue()
    for item in asked:
        todo.put(item)

    def work() -> None:
        with suppress(Empty):
            while True:
                ask, future = todo.get_nowait()
                _settle(future, ask)

    for _ in range(min(threads, len(asked))):
        threading.Thread(target=work, name=name, daemon=True).start()
    return [future.result() for _, future in asked]


def _settle(future: Future[T], act: Callable[[], T]) -> None:
    try:
        future.set_result(act())
    except BaseException as error:  # noqa: BLE001  # whoever waits for the result is told
        future.set_exception(error)
