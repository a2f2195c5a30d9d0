"""A provider that tries again what may succeed a moment later: the one place where this is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from remote.contract.attempts import Attempts

T = TypeVar("T")


def retrying(provider: T, attempts: Attempts) -> T:
    """The same provider. Every verb can be called twice, `create` too: its request id makes it one machine."""
    return cast(T, _Retrying(provider, attempts))


class _Retrying:
    def __init__(self, provider: object, attempts: Attempts) -> None:
        self._provider = provider
        self._attempts = attempts

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._provider, name)
        return self._again(value) if callable(value) else value

    def _again(self, verb: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any, **named: Any) -> Any:
            return self._attempts.call(lambda: verb(*values, **named))

        return call
