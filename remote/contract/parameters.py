"""One setting of a scenario: its type, its range, and what a value from a flag or a file becomes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .document import ContractError

Value = bool | int | float | str


@dataclass(frozen=True)
class Parameter:
    """One setting of a scenario. Its type is that of its default."""

    name: str
    default: Value
    help: str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    least: float = -math.inf  # above `low`, where `low` itself means something else: "0: what suits"

    @property
    def kind(self) -> type:
        return type(self.default)

    @property
    def range_text(self) -> str:
        """ "1 to 4096", "0, or 16 to 1024", "none, light or strong", "true or false"."""
        if self.choices:
            return " or ".join((", ".join(self.choices[:-1]), self.choices[-1]))
        if self.kind is bool:
            return "true or false"
        if self.least > self.low:
            return f"{self.low:g}, or {self.least:g} to {self.high:g}"
        return f"{self.low:g} to {self.high:g}"

    def checked(self, value: Any, *, of: str) -> Value:
        """The value as this parameter's type; text is read.

        of              the scenario, for the error
        ContractError   a wrong type, a value out of range
        """
        what = f"{of}: {self.name} is {str(value)[:80]!r}, not"
        result = self._typed(value)
        if result is None:
            kind = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[self.kind]
            raise ContractError(f"{what} {kind}")
        if self.choices and result not in self.choices:
            raise ContractError(f"{what} {self.range_text}")
        if not isinstance(result, (str, bool)) and not self._in_range(result):
            raise ContractError(f"{what} in the range {self.range_text}")
        return result

    def _in_range(self, value: float) -> bool:
        return value == self.low or max(self.low, self.least) <= value <= self.high

    def _typed(self, value: Any) -> Value | None:
        """The value as the parameter's type, or None."""
        if isinstance(self.default, bool):
            return (
                value if isinstance(value, bool) else {"true": True, "false": False}.get(str(value).lower())
            )
        if isinstance(self.default, str):
            return value if isinstance(value, str) else None
        if isinstance(value, bool) or (isinstance(self.default, int) and isinstance(value, float)):
            return None
        try:
            return int(value) if isinstance(self.default, int) else float(value)
        except (TypeError, ValueError):
            return None
