"""Lists of the fake Compute Engine: filters, order and pages.

Filters are of two languages that may not be mixed: `name eq "tlvm-.*"` (whole match of a regular expression) and
AIP-160 (`labels.tlvm-owner=ana AND status!=RUNNING`, `labels.tlvm-run:*`).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.fakes.compute_faults import Refused

Resource = dict[str, Any]
Test = Callable[[Resource], bool]

_TOKENS = re.compile(
    r"""\s*(?:(?P<bracket>[()])|(?P<operator>!=|<=|>=|=|<|>|:)|"(?P<quoted>[^"]*)"|'(?P<single>[^']*)'|(?P<word>[^\s()=!<>:"']+))"""
)


def page(items: Sequence[Any], query: Mapping[str, str], page_size: int) -> tuple[list[Any], str]:
    """The part of a list that was asked for, and the token of the next; "" when this is the last."""
    wanted = int(query.get("maxResults", 500))
    if not 0 <= wanted <= 500:
        raise Refused(400, "invalid", f"Invalid value for field 'maxResults': '{wanted}'.")
    start = _start(query.get("pageToken", ""))
    end = start + min(wanted, page_size)
    token = base64.urlsafe_b64encode(f"from {end}".encode()).decode() if end < len(items) else ""
    return list(items[start:end]), token


def ordered(items: Sequence[Resource], query: Mapping[str, str]) -> list[Resource]:
    order = query.get("orderBy", "name")
    if order == "name":
        return sorted(items, key=lambda item: str(item["name"]))
    if order == "creationTimestamp desc":
        return sorted(items, key=lambda item: str(item.get("creationTimestamp", "")), reverse=True)
    raise Refused(400, "invalid", f"Invalid value for field 'orderBy': '{order}'.")


def matching(text: str, known: Sequence[str]) -> Test:
    """The test that a filter is; `known` are the fields that such an item may have."""
    if not text.strip():
        return lambda _: True
    parser = _Parser(text, known)
    test = parser.expression()
    if parser.tokens or len(parser.languages) > 1:
        raise parser.refused()
    return test


def _start(token: str) -> int:
    if not token:
        return 0
    try:
        found = re.fullmatch(r"from (\d+)", base64.urlsafe_b64decode(token).decode())
    except ValueError:
        found = None
    if found is None:
        raise Refused(400, "invalid", f"Invalid value for field 'pageToken': '{token}'.")
    return int(found[1])


class _Parser:
    def __init__(self, text: str, known: Sequence[str]) -> None:
        self.text = text
        self.known = known
        self.languages: set[str] = set()
        self.tokens: list[tuple[str, str]] = []
        at = 0
        while at < len(text.rstrip()):
            found = _TOKENS.match(text, at)
            if found is None:
                raise self.refused()
            kind = str(found.lastgroup)
            self.tokens.append(("word" if kind == "single" else kind, found[kind]))
            at = found.end()

    def refused(self) -> Refused:
        return Refused(
            400,
            "invalid",
            f"Invalid value for field 'filter': '{self.text}'. Invalid list filter expression.",
        )

    def expression(self) -> Test:
        """Terms that all hold, with or without AND; OR binds tighter."""
        tests = [self._either()]
        while self.tokens and self.tokens[0] != ("bracket", ")"):
            if self.tokens[0] == ("word", "AND"):
                self.tokens.pop(0)
            tests.append(self._either())
        return lambda item: all(test(item) for test in tests)

    def _either(self) -> Test:
        tests = [self._term()]
        while self.tokens and self.tokens[0] == ("word", "OR"):
            self.tokens.pop(0)
            tests.append(self._term())
        return lambda item: any(test(item) for test in tests)

    def _term(self) -> Test:
        kind, word = self._next()
        if (kind, word) == ("bracket", "("):
            test = self.expression()
            if self._next() != ("bracket", ")"):
                raise self.refused()
            return test
        if (kind, word) == ("word", "NOT"):
            negated = self._term()
            return lambda item: not negated(item)
        if kind != "word" or word.split(".")[0] not in self.known:
            raise self.refused()
        return self._comparison(word)

    def _comparison(self, field: str) -> Test:
        kind, operator = self._next()
        value_kind, value = self._next()
        if value_kind not in {"word", "quoted"}:
            raise self.refused()
        if kind == "word" and operator in {"eq", "ne"}:
            self.languages.add("regular expressions")
            pattern = re.compile(value)
            return lambda item: (
                (pattern.fullmatch(_text(item, field) or "") is not None) == (operator == "eq")
            )
        if kind != "operator":
            raise self.refused()
        self.languages.add("AIP-160")
        if operator == ":":
            if (value_kind, value) == ("word", "*"):
                return lambda item: _text(item, field) is not None
            return lambda item: value.lower() in (_text(item, field) or "").lower()
        return lambda item: _compared(_text(item, field), operator, value)

    def _next(self) -> tuple[str, str]:
        if not self.tokens:
            raise self.refused()
        return self.tokens.pop(0)


def _compared(found: str | None, operator: str, value: str) -> bool:
    if operator in {"=", "!="}:
        return (found == value) == (operator == "=")
    if found is None:
        return False
    numbers = found.lstrip("-").isdecimal() and value.lstrip("-").isdecimal()
    left, right = (float(found), float(value)) if numbers else (found, value)
    return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[operator]  # type: ignore[operator]


def _text(item: Any, field: str) -> str | None:
    """The value of a field with dots ("labels.tlvm-owner"), as text; None when there is none."""
    for part in field.split("."):
        if isinstance(item, list):
            item = next((entry for entry in item if isinstance(entry, dict) and part in entry), {})
        if not isinstance(item, dict) or part not in item:
            return None
        item = item[part]
    return str(item).lower() if isinstance(item, bool) else str(item)
