"""Text on the screen: no escape sequence, markup or control character of somebody else's, whole names and aligned columns."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.datasets.folder.names import decode, printable
from orchestrator.errors import NotFoundError
from orchestrator.render import problem
from orchestrator.render.events import Events
from orchestrator.render.progress import Terminal
from orchestrator.render.text import clean, columns, duration, folded, price, size
from tests.orchestrator.screens import Terminalish, screen

HOSTILE = [
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07after",
    "\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\",
    "\x1b]52;c;cm0gLXJm\x07",
    "\x9b2Jcleared",
    "\x1bPq#0;2;0;0;0\x1b\\sixel",
    "over\rwritten",
    "back\b\b\b\bspace",
    "bell\x07",
    "\u202egnp.exe",
    "zero\u200bwidth",
    "\x00nul",
    "[bold red]markup[/bold red]",
    "[link=http://evil]click[/link]",
    ":skull:",
    "two\nlines",
    "lone \ud800 surrogate",
    "\x1b[",
    "\x1b]never closed",
]
_FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.mark.parametrize("text", HOSTILE)
def test_clean_leaves_one_harmless_line(text: str) -> None:
    found = clean(text)
    assert not _FORBIDDEN.search(found)
    assert "\n" not in found and "\t" not in found
    assert "evil\x1b" not in found


def test_clean_keeps_what_people_write() -> None:
    for text in ("Größe 3 µm", "日本語 ラベル", "عربي", "a [bold] b", "naïve – “quoted”", "🌳"):
        assert clean(text) == text


def test_clean_bounds_its_length() -> None:
    assert len(clean("x" * 1_000_000)) < 5_000
    assert len(clean("\u00e9" * 1_000_000)) < 5_000


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_hostile_reaches_either_stream(text: str) -> None:
    to, out, err = screen()
    to.line(text)
    to.log(text)
    to.note(text)
    to.next(text)
    to.progress.say(text, text)
    to.progress.warn(text)
    with to.progress.bar(text, 3, text) as bar:
        bar.advance(3)
    problem.show(NotFoundError(text, detail=text, next=text), err)
    with Events(to.progress) as events:
        for event in hostile_events(text):
            events.show(event)
    for stream in (out, err):
        assert not _FORBIDDEN.search(stream.getvalue())


@pytest.mark.parametrize("text", HOSTILE)
def test_on_a_terminal_only_our_own_escapes_are_written(text: str) -> None:
    stream = Terminalish()
    terminal = Terminal(Console(file=stream, force_terminal=True, width=80, markup=False, highlight=False))
    terminal.say("label", text)
    terminal.warn(text)
    with terminal.bar(text, 3, "images") as bar:
        bar.advance(3)
    written = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert not _FORBIDDEN.search(written.replace("\r", ""))
    for word in ("title", "evil", "cm0gLXJm", "sixel"):
        assert f"\x1b]{word}" not in stream.getvalue() and f";{word}" not in stream.getvalue()


def hostile_events(text: str) -> list[dict[str, Any]]:
    return [
        {"type": "state", "state": text, "message": text},
        {"type": "step", "number": text, "name": text, "text": text},
        {
            "type": "network",
            "stages": [{"name": text, "shape": text, "parameters": text, "frozen": text}, text, 3],
        },
        {"type": "network", "stages": text},
        {"type": "progress", "step": text, "done": 1, "total": 2, "unit": text},
        {"type": "progress", "step": "x", "done": 1e308, "total": -5, "unit": None},
        {"type": "epoch", "epoch": text, "of": [], "train_loss": text, "seconds": text},
        {"type": "log", "level": text, "text": text},
        {"type": "published", "files": text, "bytes": text},
        {"type": text},
        {"type": "metrics", "accuracy": text},
        {},
    ]


@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [
        (duration, 0.44, "0.4 s"),
        (duration, 9.97, "10 s"),
        (duration, 59.7, "1 min"),
        (duration, 91, "1 min 31 s"),
        (duration, 3600 * 3 + 58 * 60, "3 h 58 min"),
        (duration, 168 * 3600, "7 d 0 h"),
        (duration, -3, "0.0 s"),
        (size, 999, "999 B"),
        (size, 68_400_000, "68 MB"),
        (size, 2_100_000_000, "2.1 GB"),
        (size, 999_600, "1.0 MB"),
        (price, 0, "free"),
        (price, 0.001, "under $0.01"),
        (price, 0.3, "$0.30"),
    ],
)
def test_numbers_are_written_as_people_do(
    function: Callable[[float], str], value: float, expected: str
) -> None:
    assert function(value) == expected


def test_columns_align_wide_characters() -> None:
    assert columns([("日本", "1"), ("oak", "2")]) == ["日本  1", "oak   2"]
    assert columns([]) == []


def test_what_fits_is_a_table_also_on_a_terminal() -> None:
    assert folded([("a", "b"), ("long", "")], 80) == [["a     b"], ["long"]]
    assert folded([("one", "two three")], 10) == [["one", "    two", "    three"]]
    assert folded([], 10) == []


def test_names_that_are_not_utf8_are_whole_in_json_and_can_be_had_back() -> None:
    raw = b"caf\xe9%\x1b.jpg"
    text = raw.decode("utf-8", "surrogateescape")
    assert decode(printable(text)) == raw
    to, out, _ = screen()
    to.document("predict", {"a": text, text: Path(text), "lone": "\ud800"})
    assert "\\ud" not in out.getvalue()
    assert json.loads(out.getvalue())["a"] == "caf%E9%25%1B.jpg"


def test_figures_that_are_no_numbers_are_null_for_strict_readers_of_json() -> None:
    to, out, _ = screen()
    to.document(
        "attach", {"metrics": {"temperature": float("nan"), "seconds": [float("inf"), -float("inf"), 2.5]}}
    )
    to.event({"done": float("inf")})
    assert "NaN" not in out.getvalue() and "Infinity" not in out.getvalue()
    first, second = out.getvalue().rsplit("\n{", 1)
    assert json.loads(first)["metrics"] == {"temperature": None, "seconds": [None, None, 2.5]}
    assert json.loads("{" + second) == {"done": None}


def test_an_error_has_three_parts() -> None:
    stream = io.StringIO()
    problem.show(NotFoundError("No machine m", detail="one\ntwo", next="tlvm up"), stream)
    assert stream.getvalue() == "error   No machine m\n        one\n        two\nnext    tlvm up\n"
