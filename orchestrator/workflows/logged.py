"""What `-v` shows of a provider and a store: each request, how long it took, and how it ended."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
_SHOWN = 200  # characters of an argument


def logged(plug: T, name: str) -> T:
    """The same provider or store, which logs its requests when somebody asked for that."""
    return cast(T, _Logged(plug, name)) if _LOG.isEnabledFor(logging.DEBUG) else plug


class _Logged:
    def __init__(self, plug: object, name: str) -> None:
        self._plug = plug
        self._name = name

    def __getattr__(self, verb: str) -> Any:
        value = getattr(self._plug, verb)
        return self._logging(verb, value) if callable(value) else value

    def _logging(self, verb: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def request(*values: Any, **named: Any) -> Any:
            shown = ", ".join(str(value)[:_SHOWN] for value in (*values, *named.values()))
            began = time.monotonic()
            try:
                answer = call(*values, **named)
            except Exception as error:
                _LOG.debug("%s.%s(%s): %s: %s", self._name, verb, shown, type(error).__name__, error)
                raise
            _LOG.debug("%s.%s(%s) in %.3f s", self._name, verb, shown, time.monotonic() - began)
            return answer

        return request
